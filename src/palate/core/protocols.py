"""What a reward must do, and the requests and tokens of engines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from jaxtyping import Bool, Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan

DEFAULT_MAX_TOKENS = 128  # of an answer, at every door


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are sampled from the pooled distribution; applied in the order of the fields."""

    repetition_penalty: float = 1.0  # divides logits above 0 of earlier tokens, multiplies others
    no_repeat_ngram_size: int = 0  # no n-gram of this many tokens occurs twice; 0 is off
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # keep the most probable tokens; 0 keeps all
    top_p: float = 1.0  # keep the smallest set of this probability
    max_tokens: int = DEFAULT_MAX_TOKENS  # of an answer
    stop: tuple[str, ...] = ()  # the answer ends before the first of these strings

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        rules = {
            "repetition_penalty": (self.repetition_penalty > 0, "a number above 0"),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size >= 0, "0 or more"),
            "temperature": (0 <= self.temperature < float("inf"), "a number of 0 or more"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "a number above 0 and at most 1"),
            "max_tokens": (self.max_tokens >= 1, "1 or more"),
        }
        for name, (holds, allowed) in rules.items():
            if not holds:
                raise InvalidInputError(
                    f"The sampling setting {name}={getattr(self, name)} is out of range; "
                    f"use {allowed}."
                )


class Constraint(Protocol):
    """Which tokens may come next in an answer; it goes along with the answer."""

    def copy(self) -> "Constraint":
        """The same in the same state, for one more answer."""
        ...

    def allowed(self) -> Bool[ndarray, " vocab"]:
        """`[vocab]`, the tokens that may come next."""
        ...

    def take(self, token: int, /) -> None:
        """Go on behind this token."""
        ...


@dataclass(frozen=True)
class Request:
    """One answer to be generated."""

    prompt: str  # text with the chat template applied
    plan: Plan  # rows and pool
    sampling: SamplingParams = SamplingParams()  # how tokens are sampled
    seed: int = 0  # the same seed gives the same answer, whatever else is in the batch
    # requests of one scope share a prefix cache. Each tenant has its own, so timing tells nothing
    scope: str = ""
    tokens: tuple[int, ...] = ()  # ids of the prompt, where the caller has them
    constraint: Constraint | None = None  # at its beginning; on the pooled distribution
    # by token id, added to the pooled log-probabilities, nats, before temperature
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])


@dataclass(frozen=True)
class Token:
    """One token of a stream."""

    request: int  # index of the request within the batch
    token: int  # token id
    text: str  # that this token adds; may be empty until a character is whole
    log_prob: float  # nats, under the pooled distribution before temperature, top-k and top-p
    finish: str | None = None  # `stop` or `length` on the last token


class Reward(Protocol):
    """Text to number, higher is better, on a stored scale in [0, 1]."""

    @property
    def objective(self) -> str:
        """Name of what it measures."""
        ...

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[ndarray, " texts"]:
        """`[texts]` in [0, 1], one for each prompt and answer."""
        ...
