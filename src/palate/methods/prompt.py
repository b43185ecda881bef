"""`base`, `prompt` and `best-of-n`: the base model without experts.

Best of n is what a practitioner with reward models does instead of training: several answers of the
prompted base, ranked by the user's reward. It composes with every other method (`n_candidates`).

Source: methods beyond.md, section 3.
"""

from dataclasses import replace

from palate.core.decision import Decision, Known, Messages, with_instruction
from palate.core.errors import InvalidInputError, PalateError
from palate.core.plan import reference_plan
from palate.library.library import Library

DEFAULT_CANDIDATES = 4


class BaseMethod:
    """The base model itself, against which every gain is measured."""

    name = "base"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The reference's plan; nothing that is known of the user counts."""
        del known
        plan = reference_plan(n_experts=library.bank.n_experts)
        return Decision(messages, plan, self.name, reason="One pass of the base, no expert.")


class PromptMethod:
    """A system prompt on the base model."""

    name = "prompt"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The reference's plan, the instruction added to the system message.

        Raises:
            InvalidInputError: nothing is known that could be put into words.
        """
        sentence = library.instruction(known)
        if not sentence:
            raise InvalidInputError(
                "Nothing is known of the user that could be put into words; give an instruction, "
                "or a preference over objectives that have one."
            )
        plan = reference_plan(n_experts=library.bank.n_experts)
        reason = f"One pass of the base, prompt: {sentence!r}."
        return Decision(with_instruction(messages, sentence), plan, self.name, reason=reason)


class BestOfNMethod:
    """The best of several answers of the prompted base."""

    name = "best-of-n"

    def can_serve(self, library: Library) -> bool:
        """Whether every objective has a reward that can be read."""
        try:
            return bool(library.rewards.objectives)
        except PalateError:
            return False

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The plan of `prompt`, or of `base` where nothing can be put into words."""
        inner = PromptMethod() if library.instruction(known) else BaseMethod()
        decision = inner.decide(library, messages, known)
        reason = f"The best of several answers by the user's reward. {decision.reason}"
        return replace(decision, method=self.name, n_candidates=DEFAULT_CANDIDATES, reason=reason)
