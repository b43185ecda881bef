"""What is known of a user goes in, a decision comes out; every door passes the decision on.

A *method* is a function from `Known` to a `Decision`. `palate.library.library.Library.decide` calls
it and then applies the safety floor; nothing else in the package turns what is known of a user into
a plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.types import Belief, Interval

if TYPE_CHECKING:
    from palate.library.library import Library  # the type a method is given; nothing is imported

Messages = str | Sequence[Mapping[str, str]]
"""A prompt, or messages `{"role", "content"}` with the roles system, user and assistant."""

MAX_CANDIDATES = 16  # of best of n; the KL to the plan grows with log n only, the cost with n


@dataclass(frozen=True, eq=False)
class Known:
    """All that is known of a user: one record from the wire to the method.

    Attributes:
        preference: Shares by objective, on the simplex.
        coefficients: Coefficients by expert; they take precedence over a preference.
        belief: Learned from feedback, over the experts' coefficients.
        instruction: The user's own words.
        strength: Multiplies coefficients that follow from a preference; `None` is the library's
            own, measured when it was built.
        max_passes: Passes of the base per sampled token that `auto` may spend; `None` is its
            default.
    """

    preference: Mapping[str, float] | None = None
    coefficients: Mapping[str, float] | None = None
    belief: Belief | None = None
    instruction: str | None = None
    strength: float | None = None
    max_passes: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing says what the user wants."""
        told = (self.preference, self.coefficients, self.belief, self.instruction)
        return all(part is None for part in told)


@dataclass(frozen=True)
class Decision:
    """All that was decided for one request: one record from the method to the wire.

    Attributes:
        messages: As the rows read them; a method may have added a system sentence.
        plan: For the engine.
        method: Name of the method that decided; never `auto`.
        coefficients: By expert: of a soup's row, shares of a mixture, 1 for a portfolio's member.
        n_candidates: Best of n draws that many answers and keeps the one its ranking prefers.
        ranking: What candidates are ranked by: shares by objective, for the library's rewards.
        learned_ranking: Or coefficients by expert, for the reward fitted to the user's feedback;
            used where `ranking` is empty.
        reason: One or two sentences.
        predicted_utility: Gain over the base for this preference, measured when the library was
            built; `None` where it was not measured.
        certified_loss: Upper bound on what the user loses by the portfolio's member, reward units.
        prompt: The user's own conversation, without what a method added; set by the library.
    """

    messages: Messages
    plan: Plan
    method: str
    coefficients: Mapping[str, float] = field(default_factory=dict[str, float])
    n_candidates: int = 1
    ranking: Mapping[str, float] = field(default_factory=dict[str, float])
    learned_ranking: Mapping[str, float] = field(default_factory=dict[str, float])
    reason: str = ""
    predicted_utility: Interval | None = None
    certified_loss: float | None = None
    prompt: Messages = ""

    @property
    def n_passes(self) -> float:
        """Passes of the base per sampled token, candidates included."""
        return float(len(self.plan.normal_form().rows) * self.n_candidates)


@runtime_checkable
class Method(Protocol):
    """Turns what is known of a user into a decision.

    A method of your own is a class with these two members; give an object of it wherever a method's
    name is accepted, or add it to `Library.methods`.
    """

    @property
    def name(self) -> str:
        """As it is asked for."""
        ...

    def decide(self, library: "Library", messages: Messages, known: Known) -> Decision:
        """The decision; the library applies its safety floor afterwards.

        Raises:
            InvalidInputError: what is known does not suffice, or the library lacks a part.
        """
        ...


def with_instruction(messages: Messages, sentence: str) -> Messages:
    """The conversation with a sentence added to its system message; one is made if there is none.

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
        said = plain[0]["content"].strip()
        content = f"{said}\n\n{sentence}" if said else sentence
        return [{"role": "system", "content": content}, *plain[1:]]
    return [{"role": "system", "content": sentence}, *plain]


def last_user_text(messages: Messages) -> str:
    """What the user said last: what rewards read as the prompt."""
    if isinstance(messages, str):
        return messages
    said = [message["content"] for message in messages if message.get("role") == "user"]
    return said[-1] if said else messages[-1]["content"]


def require_messages(messages: Messages) -> None:
    """Return when every message has a role and a text.

    Raises:
        InvalidInputError: there are no messages, or one lacks a role or a text.
    """
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
