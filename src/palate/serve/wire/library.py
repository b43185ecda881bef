"""`/v1/library`, `/v1/regret`, `/v1/methods`: what is offered, what it costs and gains."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from palate.core.types import Objective
from palate.serve.wire.palate import Preference, UtilityOut, WireIn

MAX_POINTS = 5000
MAX_METHOD_POINTS = 64  # each is a decision of every method


class ExpertOut(TypedDict):
    """One adapter, and the preference that it was trained for."""

    name: str
    wanted: dict[str, float]
    size_bytes: int  # of its folder's files
    card: str  # its model card, in Markdown


class MemberOut(TypedDict):
    """A member of the portfolio; `values` are lower bounds by objective, reward units."""

    name: str
    coefficients: dict[str, float]  # by expert; empty for the base
    values: dict[str, float]


class CertificateOut(TypedDict):
    """An upper bound on what users lose by having only the portfolio."""

    # reward units, over the whole simplex; `None` where every listed policy is a member: nothing is
    # known beyond the listed policies
    additive_gap: float | None
    multiplicative_gap: float | None  # share of the best value; `None` where that may be negative
    worst_preference: dict[str, float]  # where the additive gap is attained; empty without one
    confidence: float  # share of repetitions in which it holds
    kind: str  # `worst-case` over all policies, or `candidate-relative` to those in the table
    assumptions: list[str]  # one sentence each


class PortfolioOut(TypedDict):
    """The portfolio."""

    members: list[MemberOut]
    certificate: CertificateOut


class LimitsOut(TypedDict):
    """Largest requests that the server takes."""

    max_tokens: int
    max_prompt_tokens: int
    max_answers: int
    max_candidates: int
    max_body_bytes: int
    deadline_seconds: float
    requests_per_minute: int


class FloorOut(TypedDict):
    """The safety floor that every method keeps."""

    expert: str
    coefficient: float


class LibraryOut(TypedDict):
    """What the server offers."""

    base: str
    fingerprint: str
    beta: float
    objectives: list[Objective]
    experts: list[ExpertOut]
    methods: list[str]
    floor: FloorOut | None
    portfolio: PortfolioOut | None
    limits: LimitsOut
    needs_key: bool


class RegretIn(WireIn):
    """Preferences to look up."""

    preferences: Annotated[list[Preference], Field(min_length=1, max_length=MAX_POINTS)]


class RegretPoint(TypedDict):
    """Which member serves a preference, and what that costs at most."""

    member: str
    # certified bound, reward units; `None` where nothing is known beyond the listed policies
    loss: float | None
    value: float  # lower bound on what the member is worth
    margin: float | None  # over the second best member; `None` with one member


class RegretOut(TypedDict):
    """One point for each preference, in order."""

    points: list[RegretPoint]


class MethodsIn(WireIn):
    """Preferences for which methods are compared."""

    preferences: Annotated[list[Preference], Field(min_length=1, max_length=MAX_METHOD_POINTS)]


class MethodOut(TypedDict):
    """What a method does for a preference."""

    method: str
    decides: str  # the method that decides: another one only for `auto`
    n_candidates: int
    n_passes: float  # of the base per token of an answer, candidates included
    predicted_utility: UtilityOut | None  # `None` where it was not measured


class MethodsOut(TypedDict):
    """Every method that can serve, once for each preference in order."""

    points: list[list[MethodOut]]
    n_prompts: int  # on which utilities were measured; 0 where none were
    self_judged: list[str]  # objectives judged by the reward that also trained the experts
