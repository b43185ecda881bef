"""Which words every part of a mixture reads: the experts, the controller, the reference answer.

    expert i     the prompt, with its own preference sentence, all wanted ones, or none
    controller   the prompt with all wanted sentences; the strengths reach it as numbers

Source:
    methods mope 4: whether an expert sees its own sentence or all of them is unknown; the default
    is its own, the others are options.

Shares in words ("Be brief. (70%)") were tried and dropped: no model here was taught to read them,
and on the small world they broke half of the answers (docs/log.md).

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
class Asked:
    """A prompt, and how much of each expert is wanted.

    Attributes:
        prompt: As users write it: a text, or the messages of a conversation.
        strengths: One share per expert of the bank, on the simplex; zero is not wanted.
    """

    prompt: Messages
    strengths: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse strengths off the simplex."""
        point = require_simplex(self.strengths, name="strengths over the experts")
        object.__setattr__(self, "strengths", tuple(point.tolist()))

    @property
    def text(self) -> str:
        """What the user said last: what rewards read as the prompt."""
        return last_user_text(self.prompt)

    @property
    def wanted(self) -> tuple[int, ...]:
        """Experts of positive strength."""
        return tuple(k for k, strength in enumerate(self.strengths) if strength > 0.0)


@dataclass(frozen=True, eq=False)
class Wording:
    """Turns what is asked into texts and plans.

    Attributes:
        base: Gives template and token ids.
        instructions: The preference sentence of each expert, in bank order.
        prompts: What the experts read.
        pool: How the experts' distributions become one.
        blend: Coefficient of every other wanted expert in an expert's row, from 0 to below 1.
    """

    base: Base
    instructions: tuple[str, ...]
    prompts: Prompts = "own"
    pool: Pooling = "linear"
    blend: float = 0.0

    def preference(self, asked: Asked) -> str:
        """The wanted sentences; how much of each is wanted, the controller reads as numbers.

        Raises:
            InvalidInputError: there is not one strength per expert.
        """
        if len(asked.strengths) != len(self.instructions):
            raise InvalidInputError(
                f"There are {len(asked.strengths)} strengths for {len(self.instructions)} experts; "
                "give one for each."
            )
        return " ".join(self.instructions[k] for k in asked.wanted if self.instructions[k])

    def full_text(self, asked: Asked) -> str:
        """The prompt with the whole preference, as the base reads it."""
        return self._text(asked.prompt, self.preference(asked))

    def full_messages(self, asked: Asked) -> Messages:
        """The prompt with the whole preference, as messages."""
        return with_instruction(asked.prompt, self.preference(asked))

    def plan(
        self,
        asked: Asked,
        *,
        controller: str | None = None,
        shares: Sequence[float] | None = None,
        extra: Sequence[int] = (),
    ) -> Plan:
        """One row per wanted expert, and the wording's pool.

        Args:
            asked: Prompt and strengths.
            controller: Name of the controller that gives the shares.
            shares: Fixed shares, one per wanted expert; without both the mixture is uniform.
            extra: Experts that get a row though they were not asked for, as a floor needs.

        Raises:
            InvalidInputError: there is not one strength per expert.
        """
        preference = self.preference(asked)
        experts = [*asked.wanted, *(k for k in extra if k not in asked.wanted)]
        rows = tuple(
            Row(self._coefficients(asked, k), self._context(asked, k, preference)) for k in experts
        )
        if controller is None:
            even = (1.0 / len(rows),) * len(rows)
            return Plan(rows, Pool(self.pool, tuple(shares) if shares is not None else even))
        context = tuple(encode_prompt(self.base, self._text(asked.prompt, preference)))
        strengths = tuple(asked.strengths[k] for k in experts)
        pool = Pool(self.pool, controller=controller, context=context, strengths=strengths)
        return Plan(rows, pool)

    def _coefficients(self, asked: Asked, expert: int) -> tuple[float, ...]:
        plain = one_hot(index=expert, n_experts=len(self.instructions))
        if expert not in asked.wanted:
            return plain
        return tuple(
            self.blend if k in asked.wanted and k != expert else c for k, c in enumerate(plain)
        )

    def _context(self, asked: Asked, expert: int, preference: str) -> tuple[int, ...]:
        sentences = {"own": self.instructions[expert], "full": preference, "none": ""}
        return tuple(encode_prompt(self.base, self._text(asked.prompt, sentences[self.prompts])))

    def _text(self, prompt: Messages, instruction: str) -> str:
        messages = with_instruction(prompt, instruction)
        plain = messages if isinstance(messages, str) else [dict(m) for m in messages]
        return format_messages(self.base, plain)
