"""The nouns: objectives, preferences, pairs, completions, feedback, beliefs, payoff tables.

Plain frozen data that everything imports. `Plan` has its own file, `palate.core.plan`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.simplex import require_simplex, vector_from_mapping

FeedbackKind = Literal["comparison", "rating", "thumbs"]


@dataclass(frozen=True)
class Objective:
    """Something a user can want more or less of.

    Attributes:
        name: Short identifier, used as a key everywhere.
        description: One sentence for users.
        instruction: The preference in words, as it is put to a model; may be empty.
    """

    name: str
    description: str = ""
    instruction: str = ""


@dataclass(frozen=True)
class BaseRecord:
    """Which base the library belongs to.

    Attributes:
        path: Folder or hub id as it was given, or a name of a base that palate brings (`world`).
        revision: Hub revision, or `None`.
        fingerprint: Hash of parameters, configuration and tokenizer.
        tokenizer_fingerprint: Hash of the vocabulary and special tokens.
    """

    path: str
    revision: str | None
    fingerprint: str
    tokenizer_fingerprint: str


@dataclass(frozen=True)
class Preference:
    """How much a user wants of each objective: a point of the simplex.

    Attributes:
        objectives: Names, in the library's order.
        shares: One share per objective, non-negative, sum one.
    """

    objectives: tuple[str, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse shares off the simplex."""
        if len(self.objectives) != len(self.shares):
            raise InvalidInputError(
                f"The preference has {len(self.shares)} shares for {len(self.objectives)} "
                f"objectives."
            )
        object.__setattr__(self, "shares", tuple(require_simplex(self.shares).tolist()))

    @classmethod
    def from_mapping(
        cls, shares: Mapping[str, float], *, objectives: Sequence[str]
    ) -> "Preference":
        """The preference that names some objectives; the others get zero."""
        return cls(
            tuple(objectives), tuple(vector_from_mapping(shares, objectives=objectives).tolist())
        )

    def vector(self) -> Float[ndarray, " objectives"]:
        """The shares as an array."""
        return np.array(self.shares)


@dataclass(frozen=True)
class Interval:
    """An estimate and where the truth may be.

    Attributes:
        estimate: The mean of the observations.
        low: Lower end.
        high: Upper end.
        n: Observations.
        n_clusters: Independent clusters the interval rests on; the smaller number when there are
            two kinds; `n` when there are none.
    """

    estimate: float
    low: float
    high: float
    n: int
    n_clusters: int

    def to_json(self) -> dict[str, float | int]:
        """The interval as plain data."""
        return {
            "estimate": self.estimate,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "n_clusters": self.n_clusters,
        }


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, of which one was preferred.

    Attributes:
        prompt: What was asked.
        chosen: The preferred answer; differs from `rejected`.
        rejected: The other answer.
        objective: What it was preferred for; may be empty.
        id: Identifier in its file; may be empty.
    """

    prompt: str
    chosen: str
    rejected: str
    objective: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        """Refuse a pair that says nothing."""
        if self.chosen == self.rejected:
            raise InvalidInputError(
                f"The pair {self.id or self.prompt[:40]!r} has chosen == rejected; remove it."
            )


@dataclass(frozen=True)
class Completion:
    """An answer, with what was measured of it.

    Attributes:
        prompt: What was asked.
        text: The answer.
        tokens: Token ids of the answer, including an end token when it ended by itself.
        log_probs: Natural logarithm of the probability of each token under the plan that produced
            it.
        rewards: `[objectives]` in [0, 1], or empty when not scored.
        finish: `stop` when it ended by itself, `length` when it was cut.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    rewards: tuple[float, ...] = ()
    finish: Literal["stop", "length"] = "stop"


@dataclass(frozen=True)
class Feedback:
    """What a user said of one or two answers.

    Attributes:
        user: Identifier.
        kind: `comparison` of two answers, `rating` or `thumbs` of one.
        features: `[features]`; for a comparison the first answer's minus the second's.
        label: Comparison: 1 first preferred, 0 second, 0.5 a tie. Thumbs: 1 up, 0 down. Rating: a
            number.
        group: For ratings: the prompt within which ratings are centred; otherwise unused.
        key: Idempotency key; the same key twice is the same feedback.
    """

    user: str
    kind: FeedbackKind
    features: tuple[float, ...]
    label: float
    group: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        """Refuse numbers that are not finite and labels out of range."""
        if not np.all(np.isfinite([*self.features, self.label])):
            raise InvalidInputError(
                f"The feedback {self.key!r} of {self.user!r} holds a number that is not finite."
            )
        if self.kind != "rating" and not 0.0 <= self.label <= 1.0:
            raise InvalidInputError(
                f"The label {self.label} of a {self.kind} is out of range; use a number in [0, 1]."
            )


@dataclass(frozen=True, eq=False)
class Belief:
    """A normal belief over a vector: coefficients, or a preference's free coordinates.

    Attributes:
        mean: `[features]`.
        covariance: `[features, features]`, symmetric positive definite.
        n_observations: Feedback items it rests on.
        gain: How sharply this user's labels follow margins; low for contradictory users.
    """

    mean: Float[ndarray, " features"]
    covariance: Float[ndarray, "features features"]
    n_observations: int = 0
    gain: float = 1.0


@dataclass(frozen=True, eq=False)
class PayoffTable:
    """What every policy is worth to everybody: `V_i = R_i - beta KL`.

    Attributes:
        objectives: Names, `[objectives]`.
        policies: Names, `[policies]`, all different.
        values: `[policies, objectives]`, in reward units; higher is better.
        standard_errors: `[policies, objectives]`, of the values; zero when exact.
        beta: Price of one nat of KL to the reference, in reward units.
        kl: `[policies]`, nats per answer; NaN where unknown.
        preferences: `[policies, objectives]`, what each policy was trained for; NaN rows where
            unknown.
    """

    objectives: tuple[str, ...]
    policies: tuple[str, ...]
    values: Float[ndarray, "policies objectives"]
    standard_errors: Float[ndarray, "policies objectives"]
    beta: float
    kl: Float[ndarray, " policies"] = field(default_factory=lambda: np.zeros(0))
    preferences: Float[ndarray, "policies objectives"] = field(
        default_factory=lambda: np.zeros((0, 0))
    )


@dataclass(frozen=True)
class Certificate:
    """What users can lose at most, by having only the portfolio.

    Attributes:
        additive_gap: Upper bound on `J* - max_member J`, reward units, over the whole simplex;
            `None` where every listed policy is a member and nothing bounds the others: nothing is
            known beyond the listed policies, which is not a gap of zero.
        multiplicative_gap: Upper bound on `1 - max_member J / J*`; `None` where J* may be negative,
            and without an additive gap.
        worst_preference: Where the additive gap is attained; empty without one.
        confidence: Share of repetitions in which the bound holds; one when values are exact.
        kind: `worst-case` bounds the best of all policies, `candidate-relative` the best in the
            table: relative to the listed policies only.
        assumptions: Each in one sentence.
    """

    additive_gap: float | None
    multiplicative_gap: float | None
    worst_preference: tuple[float, ...]
    confidence: float
    kind: Literal["worst-case", "candidate-relative"]
    assumptions: tuple[str, ...] = ()
