"""`output-soup` and `implicit-soup`: experts pooled log-linearly, computed or drawn by rejection.

Both have the same distribution. The explicit one runs a pass per active expert and one for the
reference; the implicit one lets the reference propose and the experts' tilts accept.

Source: Spectral Souping, arXiv 2605.20408, explicit and implicit rule.
"""

from dataclasses import replace

from palate.core.decision import Decision, Known, Messages
from palate.core.plan import output_soup_plan
from palate.library.library import Library


class OutputSoupMethod:
    """The explicit output soup."""

    name = "output-soup"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """One row per active expert and the reference, pooled log-linearly.

        Raises:
            InvalidInputError: there are no experts, or too little is known of the user.
        """
        values, reason = library.coefficients(known)
        named = dict(zip(library.bank.names, values.tolist(), strict=True))
        plan = output_soup_plan(values.tolist())
        return Decision(messages, plan, self.name, named, reason=reason)


class ImplicitSoupMethod:
    """The same distribution, drawn by rejection."""

    name = "implicit-soup"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The output soup's plan, to be drawn by rejection where several rows are pooled.

        Raises:
            InvalidInputError: there are no experts, or too little is known of the user.
        """
        decision = OutputSoupMethod().decide(library, messages, known)
        plan = decision.plan
        if plan.pool.kind == "log_linear":
            plan = replace(plan, pool=replace(plan.pool, is_implicit=True))
        reason = f"{decision.reason} Tokens are proposed by one row and accepted by the others."
        return replace(decision, plan=plan, method=self.name, reason=reason)
