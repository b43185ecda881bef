"""`soup` and `prompted-soup`: experts added as parameters, one pass; untold, or told in words too.

Source: Spectral Souping, arXiv 2605.20408, parameter soup; coefficients from a stated preference as
in rewarded soups, arXiv 2306.04488, at the library's own strength.
"""

from dataclasses import replace

from palate.core.decision import Decision, Known, Messages, with_instruction
from palate.core.plan import parameter_soup_plan
from palate.library.library import Library


class SoupMethod:
    """The parameter soup."""

    name = "soup"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """One row with the user's coefficients.

        Raises:
            InvalidInputError: there are no experts, or too little is known of the user.
        """
        values, reason = library.coefficients(known)
        named = dict(zip(library.bank.names, values.tolist(), strict=True))
        plan = parameter_soup_plan(values.tolist())
        return Decision(messages, plan, self.name, named, reason=reason)


class PromptedSoupMethod:
    """The parameter soup whose row also reads what the user wants in words."""

    name = "prompted-soup"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The soup's row, the instruction added to the system message.

        Raises:
            InvalidInputError: there are no experts, or too little is known of the user.
        """
        decision = SoupMethod().decide(library, messages, known)
        sentence = library.instruction(known)
        told = f"{decision.reason} Told: {sentence!r}." if sentence else decision.reason
        return replace(
            decision,
            messages=with_instruction(messages, sentence),
            method=self.name,
            reason=told,
        )
