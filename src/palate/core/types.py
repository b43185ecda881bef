"""The nouns: objectives, pairs, completions, feedback, beliefs, payoff tables.

Plain frozen data that everything imports. `Plan` is in `palate.core.plan`.
"""

from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError

FeedbackKind = Literal[
    "comparison", "rating", "thumbs", "copy", "regenerate", "comment", "withdrawal"
]


@dataclass(frozen=True)
class Objective:
    """Something a user can want more or less of."""

    name: str  # identifier, used as a key everywhere
    description: str = ""  # one sentence for users
    instruction: str = ""  # a sentence for the model, such as "Keep it short."; may be empty
    opposite: str = ""  # another objective's name, or a sentence that asks for the opposite
    phrases: str = ""  # how users say that they want it, with semicolons between


@dataclass(frozen=True)
class BaseRecord:
    """Which base the library belongs to."""

    path: str  # folder or hub id, as the run file has it
    revision: str | None  # on the hub
    fingerprint: str  # hash of parameters, configuration and tokenizer
    tokenizer_fingerprint: str  # hash of the vocabulary and special tokens
    # hash of the tokenizer with its chat template and end tokens; empty in older libraries
    text_fingerprint: str = ""


@dataclass(frozen=True)
class Interval:
    """A mean of observations with its confidence interval."""

    estimate: float
    low: float
    high: float
    n: int  # observations
    n_clusters: int  # independent clusters: the smaller number of two kinds, `n` without clusters

    def to_json(self) -> dict[str, float | int]:
        """The interval as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, of which one was preferred; equal ones can only be scored."""

    prompt: str
    chosen: str
    rejected: str
    objective: str = ""  # by which it was preferred; may be empty
    id: str = ""  # in its file; may be empty


@dataclass(frozen=True)
class Completion:
    """An answer, with what was measured of it."""

    prompt: str
    text: str
    tokens: tuple[int, ...] = ()  # including the end token, unless it was cut
    log_probs: tuple[float, ...] = ()  # of each token under its plan, nats
    rewards: tuple[float, ...] = ()  # `[objectives]` in [0, 1], or empty when not scored
    finish: Literal["stop", "length"] = "stop"  # `length` where it was cut


@dataclass(frozen=True)
class Feedback:
    """A user's judgment of one or two answers."""

    user: str
    kind: FeedbackKind  # `comparison` of two answers, all others of one
    features: tuple[
        float, ...
    ]  # `[features]`; of a comparison the first answer's less the second's
    label: float  # 1 first preferred, 0 second, 0.5 a tie; 1 up or a copy, 0 down; or a rating
    group: str = ""  # a rating's prompt, to be centred in; a comment's words; a withdrawn key
    key: str = ""  # the same key twice is the same feedback

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
    """A normal belief over a vector, such as coefficients."""

    mean: Float[np.ndarray, " features"]
    covariance: Float[np.ndarray, "features features"]  # positive definite
    n_observations: int = 0  # items of feedback
    gain: float = 1.0  # how sharply the user's labels follow margins; low where they contradict
    is_converged: bool = True  # false: the best that a fit found before it was stopped


@dataclass(frozen=True, eq=False)
class PayoffTable:
    """The value of every policy in every objective: `V_i = R_i - beta KL`."""

    objectives: tuple[str, ...]
    policies: tuple[str, ...]
    values: Float[np.ndarray, "policies objectives"]  # reward units; higher is better
    standard_errors: Float[np.ndarray, "policies objectives"]  # of the values; zero when exact
    beta: float  # price of one nat of KL to the reference, in reward units
    # nats per answer; NaN where unknown
    kl: Float[np.ndarray, " policies"] = field(default_factory=lambda: np.zeros(0))
    # what each policy was trained for; NaN rows where unknown
    preferences: Float[np.ndarray, "policies objectives"] = field(
        default_factory=lambda: np.zeros((0, 0))
    )


@dataclass(frozen=True)
class Certificate:
    """What users can lose at most, by having only the portfolio."""

    # upper bound on `J* - max_member J`, reward units, over the whole simplex; `None` where all
    # listed policies are members and nothing bounds the others
    additive_gap: float | None
    # bound on `1 - max_member J / J*`; `None` where J* may be negative or there is no additive gap
    multiplicative_gap: float | None
    worst_preference: tuple[float, ...]  # where the additive gap is attained; empty without one
    confidence: float  # share of repetitions in which the bound holds; one when values are exact
    # `worst-case` bounds the best of all policies, `candidate-relative` that of the listed ones
    kind: Literal["worst-case", "candidate-relative"]
    assumptions: tuple[str, ...] = ()  # each in one sentence
