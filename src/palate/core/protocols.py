"""The seams: what a reward, an engine and a store of users must do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.types import Belief, Completion, Feedback

DEFAULT_MAX_TOKENS = 128  # of an answer, at every door


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn from the pooled distribution; applied in the order of the fields.

    Attributes:
        repetition_penalty: Divides (or multiplies, where negative) pooled logits of tokens already
            seen.
        no_repeat_ngram_size: No n-gram of this many tokens occurs twice in an answer; 0 is off.
        temperature: 0 is greedy.
        top_k: Keep the most probable tokens; 0 keeps all.
        top_p: Keep the smallest set of this probability.
        max_tokens: Most tokens of an answer.
        stop: The answer ends before the first of these strings.
    """

    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = DEFAULT_MAX_TOKENS
    stop: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class Request:
    """One answer to be generated.

    Attributes:
        prompt: Text as the model reads it (a chat template already applied).
        plan: Which rows, which pool.
        sampling: How tokens are drawn.
        seed: The same seed gives the same answer, whatever else is in the batch.
        scope: What an engine keeps of the prompt to save reading it again serves requests of the
            same scope only; a server gives each tenant its own, so that no time taken tells one
            what another asked.
    """

    prompt: str
    plan: Plan
    sampling: SamplingParams = SamplingParams()
    seed: int = 0
    scope: str = ""


@dataclass(frozen=True)
class Token:
    """One token of a stream.

    Attributes:
        request: Index of the request within the batch.
        token: Token id.
        text: Text this token adds; may be empty until a character is whole.
        log_prob: Natural logarithm of its probability under the pooled distribution before
            truncation by temperature, top-k or top-p.
        finish: `stop` or `length` on the last token, otherwise `None`.
    """

    request: int
    token: int
    text: str
    log_prob: float
    finish: str | None = None


class Reward(Protocol):
    """Text to number, higher is better, on a stored scale in [0, 1]."""

    @property
    def objective(self) -> str:
        """Name of what it measures."""
        ...

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[ndarray, " texts"]:
        """`[texts]` in [0, 1], one for each prompt and answer."""
        ...


class Engine(Protocol):
    """Executes batches of plans."""

    def stream(self, requests: Sequence[Request]) -> Iterator[Token]:
        """Tokens of all requests as they are drawn."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order."""
        ...


class ProfileStore(Protocol):
    """Keeps what is known of users; loses no feedback that it acknowledged."""

    def append(self, feedback: Feedback) -> bool:
        """Keep the feedback; false when its key was already there."""
        ...

    def belief(self, user: str) -> Belief | None:
        """The stored belief, or `None` for an unknown user."""
        ...

    def history(self, user: str) -> list[Feedback]:
        """All feedback of a user, oldest first."""
        ...

    def erase(self, user: str) -> int:
        """Forget the user; returns how many rows went."""
        ...
