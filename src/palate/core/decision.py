"""What is known of a user goes in, a decision comes out.

A *method* is a function from `Known` to a `Decision`. `palate.library.library.Library.decide` calls
it and then applies the safety floor; nothing else turns what is known of a user into a plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.types import Belief, Interval

if TYPE_CHECKING:
    from palate.library.library import Library  # the type a method is given; nothing is imported

Messages = str | Sequence[Mapping[str, Any]]
"""A prompt, or messages `{"role", "content"}` with the roles system, user, assistant and tool.

The last one may carry `tools`, and others `tool_calls` and `tool_call_id`, for chat templates."""

AUTO = "auto"  # the method that chooses among the others
MAX_INSTRUCTION = 2000  # characters of a user's own words
MAX_CANDIDATES = 16  # of best of n; the KL to the plan grows with log n only, the cost with n


@dataclass(frozen=True, eq=False)
class Known:
    """All that is known of a user: one record from the wire to the method."""

    preference: Mapping[str, float] | None = None  # shares by objective, on the simplex
    coefficients: Mapping[str, float] | None = None  # by expert; they go before a preference
    belief: Belief | None = None  # learned from feedback, over the experts' coefficients
    instruction: str | None = None  # the user's own words
    strength: float | None = None  # of a preference's coefficients; `None` is the library's own
    max_passes: float | None = None  # of the base per token that `auto` may spend

    @property
    def is_empty(self) -> bool:
        """Whether nothing says what the user wants."""
        fields = (self.preference, self.coefficients, self.belief, self.instruction)
        return all(value is None for value in fields)


@dataclass(frozen=True)
class Decision:
    """All that was decided for one request: one record from the method to the wire."""

    messages: Messages  # the prompt of the rows; a method may have added a system sentence
    plan: Plan  # for the engine
    method: str  # name of the method that decided; never `auto`
    # by expert: of a soup's row, shares of a mixture, 1 for a portfolio's member
    coefficients: Mapping[str, float] = field(default_factory=dict[str, float])
    n_candidates: int = 1  # best of n samples that many answers and returns the one ranked first
    # candidates are ranked by the library's rewards with these shares by objective,
    ranking: Mapping[str, float] = field(default_factory=dict[str, float])
    # where that is empty: coefficients by expert of the reward fitted to the user's feedback
    learned_ranking: Mapping[str, float] = field(default_factory=dict[str, float])
    reason: str = ""  # one or two sentences
    predicted_utility: Interval | None = None  # gain over the base, if the library has measured it
    certified_loss: float | None = None  # most the user loses by a portfolio's member, reward units
    prompt: Messages = ""  # the user's own, without what a method added; set by the library

    @property
    def n_passes(self) -> float:
        """Passes of the base per sampled token, candidates included."""
        return float(len(self.plan.normal_form().rows) * self.n_candidates)

    def to_json(self) -> dict[str, Any]:
        """The decision as plain data, without the messages."""
        predicted = self.predicted_utility
        return {
            "method": self.method,
            "coefficients": dict(self.coefficients),
            "reason": self.reason,
            "n_candidates": self.n_candidates,
            "n_passes": self.n_passes,
            "predicted_utility": None if predicted is None else predicted.to_json(),
            "certified_loss": self.certified_loss,
            "plan": self.plan.to_json(),
        }


@runtime_checkable
class Method(Protocol):
    """Turns what is known of a user into a decision.

    A method of your own is a class with these two members; give an object of it wherever a method's
    name is accepted, or add it to `Library.methods`. It may also have

    - `can_serve(library) -> bool`: false where the library lacks a part that the method needs;
    - `part_key(files) -> str`: hash of the part of a library's folder that only this method reads.
    """

    @property
    def name(self) -> str:
        """What requests call it."""
        ...

    def decide(self, library: "Library", messages: Messages, known: Known) -> Decision:
        """The decision; the library applies its safety floor afterwards.

        Raises:
            InvalidInputError: what is known does not suffice, or the library lacks a part.
        """
        ...


def with_instruction(messages: Messages, sentence: str) -> Messages:
    """The conversation with a sentence added to its system message, or to a new one.

    Example:
        >>> with_instruction("Why?", "Be brief.")
        [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Why?'}]
    """
    if not sentence:
        return messages
    plain = (
        [{"role": "user", "content": messages}]
        if isinstance(messages, str)
        else [dict(message) for message in messages]
    )
    if plain and plain[0].get("role") == "system":
        system = plain[0]["content"].strip()
        content = f"{system}\n\n{sentence}" if system else sentence
        return [{**plain[0], "content": content}, *plain[1:]]
    return [{"role": "system", "content": sentence}, *plain]


def last_user_text(messages: Messages) -> str:
    """The last user message: what rewards take as the prompt."""
    if isinstance(messages, str):
        return messages
    texts = [message["content"] for message in messages if message.get("role") == "user"]
    return texts[-1] if texts else messages[-1]["content"]


def require_messages(messages: Messages) -> None:
    """Return when there are messages with roles and texts; InvalidInputError where not."""
    if isinstance(messages, str):
        return
    if not messages:
        raise InvalidInputError("The conversation has no messages; give at least one.")
    for place, message in enumerate(messages, start=1):
        for name in ("role", "content"):
            if not isinstance(message.get(name), str):
                raise InvalidInputError(
                    f"Message {place} of the conversation has no {name!r} that is text; give "
                    "messages with a role and a content."
                )
