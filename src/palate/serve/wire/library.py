"""`/v1/library` and `/v1/regret`: what is on offer, and what anybody loses by it."""

from typing import Annotated

from pydantic import Field

from palate.serve.wire.palate import Preference, WireIn, WireOut

MAX_POINTS = 5000


class ObjectiveOut(WireOut):
    """Something a user can want."""

    name: str
    description: str
    instruction: str


class ExpertOut(WireOut):
    """One adapter, and what it was trained for."""

    name: str
    wanted: dict[str, float]


class MemberOut(WireOut):
    """A member of the portfolio: what it is worth to each objective at least, reward units."""

    name: str
    values: dict[str, float]


class CertificateOut(WireOut):
    """What nobody loses more than.

    Attributes:
        additive_gap: Reward units, over the whole simplex; `None` where every listed policy is a
            member: nothing is known beyond the listed policies.
        multiplicative_gap: As a share of the best value; `None` where that may be negative.
        worst_preference: Where the additive gap is attained; empty without one.
        confidence: Share of repetitions in which it holds.
        kind: `worst-case` over all policies, or `candidate-relative` to those in the table.
        assumptions: One sentence each.
    """

    additive_gap: float | None
    multiplicative_gap: float | None
    worst_preference: dict[str, float]
    confidence: float
    kind: str
    assumptions: list[str]


class PortfolioOut(WireOut):
    """The portfolio and its certificate."""

    members: list[MemberOut]
    certificate: CertificateOut


class LimitsOut(WireOut):
    """What the server allows."""

    max_tokens: int
    max_prompt_tokens: int
    max_answers: int
    max_candidates: int
    max_body_bytes: int
    deadline_seconds: float
    requests_per_minute: int


class FloorOut(WireOut):
    """The safety floor that every method keeps."""

    expert: str
    coefficient: float


class LibraryOut(WireOut):
    """What is on offer."""

    base: str
    fingerprint: str
    beta: float
    objectives: list[ObjectiveOut]
    experts: list[ExpertOut]
    methods: list[str]
    floor: FloorOut | None
    portfolio: PortfolioOut | None
    limits: LimitsOut
    needs_key: bool


class RegretIn(WireIn):
    """Preferences to look up."""

    preferences: Annotated[list[Preference], Field(min_length=1, max_length=MAX_POINTS)]


class RegretPoint(WireOut):
    """Which member serves a preference, and what that costs at most.

    Attributes:
        member: Name.
        loss: Certified bound, reward units; `None` where nothing is known beyond the listed
            policies.
        value: What the member is worth at least.
        margin: Over the second best member; `None` with one member.
    """

    member: str
    loss: float | None
    value: float
    margin: float | None


class RegretOut(WireOut):
    """One point for each preference, in order."""

    points: list[RegretPoint]


class HealthOut(WireOut):
    """Alive, or ready for requests."""

    status: str
