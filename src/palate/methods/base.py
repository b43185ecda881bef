"""`base`: one pass of the base model, whoever asks. What every gain is measured against."""

from palate.core.decision import Decision, Known, Messages
from palate.core.plan import reference_plan
from palate.library.library import Library


class BaseMethod:
    """The base model itself."""

    name = "base"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The reference's plan; nothing of the user is read."""
        del known
        plan = reference_plan(n_experts=library.bank.n_experts)
        return Decision(messages, plan, self.name, reason="One pass of the base, no expert.")
