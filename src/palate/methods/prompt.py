"""`prompt`: the base, told in words what the user wants. The rival that anybody tries first."""

from palate.core.decision import Decision, Known, Messages, with_instruction
from palate.core.errors import InvalidInputError
from palate.core.plan import reference_plan
from palate.library.library import Library


class PromptMethod:
    """A system prompt on the base model, no expert."""

    name = "prompt"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The reference's plan, the instruction added to the system message.

        Raises:
            InvalidInputError: nothing is known that could be put into words.
        """
        sentence = require_instruction(library, known)
        plan = reference_plan(n_experts=library.bank.n_experts)
        reason = f"One pass of the base, told: {sentence!r}."
        return Decision(with_instruction(messages, sentence), plan, self.name, reason=reason)


def require_instruction(library: Library, known: Known) -> str:
    """What the user wants in words.

    Raises:
        InvalidInputError: nothing is known, or the wanted objectives have no sentence.
    """
    sentence = library.instruction(known)
    if not sentence:
        raise InvalidInputError(
            "Nothing is known of the user that could be put into words; give an instruction, or a "
            "preference over objectives that have one."
        )
    return sentence
