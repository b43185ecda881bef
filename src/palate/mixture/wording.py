"""The texts of a mixture: what experts, controller and reference answer are prompted with.

    expert i     the prompt, with its own preference sentence, all wanted ones, or none
    controller   the prompt with all wanted sentences; the strengths reach it as numbers

Shares in words ("Be brief. (70%)") were tried and dropped: no model here was taught to read them,
and on the small world they broke half of the answers (docs/log.md).

Source:
    mope.md 4: whether an expert sees its own sentence or all of them is unknown; the default is its
    own, the others are options.

Beyond the paper:
    1. With `blend` above zero a row is one expert with a share of the other wanted ones added to
       its parameters: rows then differ less, and a token can follow several objectives at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from palate.core.decision import Messages, last_user_text, with_instruction
from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, Pool, Row, one_hot
from palate.core.simplex import require_simplex
from palate.models.chat import encode_prompt, format_messages
from palate.models.load import Base

Prompts = Literal["own", "full", "none"]
Pooling = Literal["linear", "log_linear"]


@dataclass(frozen=True)
class MixtureRequest:
    """A prompt, and how much of each expert is wanted."""

    prompt: Messages  # a text, or the messages of a conversation
    strengths: tuple[float, ...]  # one per expert of the bank, on the simplex; zero is not wanted

    def __post_init__(self) -> None:
        """Refuse strengths off the simplex."""
        point = require_simplex(self.strengths, name="strengths over the experts")
        object.__setattr__(self, "strengths", tuple(point.tolist()))

    @property
    def text(self) -> str:
        """The user's last message, which rewards take as the prompt."""
        return last_user_text(self.prompt)

    @property
    def wanted(self) -> tuple[int, ...]:
        """Experts of positive strength."""
        return tuple(k for k, strength in enumerate(self.strengths) if strength > 0.0)


@dataclass(frozen=True, eq=False)
class Wording:
    """Turns requests into texts and plans."""

    base: Base  # gives template and token ids
    instructions: tuple[str, ...]  # the preference sentence of each expert, in bank order
    prompts: Prompts = "own"  # the sentences in the experts' prompts
    pool: Pooling = "linear"
    blend: float = 0.0  # coefficient of every other wanted expert in an expert's row, below 1

    def preference(self, request: MixtureRequest) -> str:
        """The wanted sentences, without their strengths.

        Raises:
            InvalidInputError: there is not one strength per expert.
        """
        if len(request.strengths) != len(self.instructions):
            raise InvalidInputError(
                f"There are {len(request.strengths)} strengths for {len(self.instructions)} "
                "experts; give one for each."
            )
        return " ".join(self.instructions[k] for k in request.wanted if self.instructions[k])

    def full_messages(self, request: MixtureRequest) -> Messages:
        """The prompt with the whole preference, as messages."""
        return with_instruction(request.prompt, self.preference(request))

    def full_text(self, request: MixtureRequest) -> str:
        """The prompt with the whole preference, in the base's template."""
        return self._text(request, self.preference(request))

    def plan(
        self, request: MixtureRequest, *, controller: str | None = None, extra: Sequence[int] = ()
    ) -> Plan:
        """One row per wanted expert, and the wording's pool.

        Without the name of a controller shares are equal. `extra` experts get a row though they are
        not wanted, as a floor needs.

        Raises:
            InvalidInputError: there is not one strength per expert.
        """
        preference = self.preference(request)
        experts = [*request.wanted, *(k for k in extra if k not in request.wanted)]
        rows = tuple(Row(*self._row(request, k, preference)) for k in experts)
        if controller is None:
            return Plan(rows, Pool(self.pool, (1.0 / len(rows),) * len(rows)))
        context = self._encode(request, preference)
        strengths = tuple(request.strengths[k] for k in experts)
        pool = Pool(self.pool, controller=controller, context=context, strengths=strengths)
        return Plan(rows, pool)

    def _row(
        self, request: MixtureRequest, expert: int, preference: str
    ) -> tuple[tuple[float, ...], tuple[int, ...]]:
        """Coefficients and context of the expert's row."""
        coefficients = list(one_hot(index=expert, n_experts=len(self.instructions)))
        if expert in request.wanted:
            for other in request.wanted:
                coefficients[other] = 1.0 if other == expert else self.blend
        sentences = {"own": self.instructions[expert], "full": preference, "none": ""}
        return tuple(coefficients), self._encode(request, sentences[self.prompts])

    def _encode(self, request: MixtureRequest, instruction: str) -> tuple[int, ...]:
        return tuple(encode_prompt(self.base, self._text(request, instruction)))

    def _text(self, request: MixtureRequest, instruction: str) -> str:
        return format_messages(self.base, with_instruction(request.prompt, instruction))
