"""`soup`, `prompted-soup`, `output-soup`, `implicit-soup`: experts with the user's coefficients.

A parameter soup adds experts to the base and takes one pass. An output soup pools a pass per active
expert and one of the reference log-linearly; the implicit one samples the same by rejection.

Source: Spectral Souping, arXiv 2605.20408; coefficients from a stated preference as in rewarded
soups, arXiv 2306.04488, at the library's own strength.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from palate.core.decision import Decision, Known, Messages, with_instruction
from palate.core.plan import Plan, implicit_plan, output_soup_plan, parameter_soup_plan
from palate.library.library import Library


@dataclass(frozen=True)
class SoupMethod:
    """One plan of the user's coefficients; the parameter soup by default."""

    name: str = "soup"
    plan_of: Callable[[Sequence[float]], Plan] = parameter_soup_plan  # coefficients in bank order
    is_prompted: bool = False  # add the user's instruction to the system message

    def can_serve(self, library: Library) -> bool:
        """Whether there are experts."""
        return bool(library.manifest.experts)

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The plan of the coefficients that are given, stated or learned.

        Raises:
            InvalidInputError: there are no experts, or too little is known of the user.
        """
        values, reason = library.coefficients(known)
        named = dict(zip(library.bank.names, values.tolist(), strict=True))
        plan = self.plan_of(values.tolist())
        if plan.pool.is_implicit:
            reason = f"{reason} One row proposes tokens, and the pooled distribution accepts them."
        sentence = library.instruction(known) if self.is_prompted else ""
        if sentence:
            messages, reason = (
                with_instruction(messages, sentence),
                f"{reason} Prompt: {sentence!r}.",
            )
        return Decision(messages, plan, self.name, named, reason=reason)


def implicit_soup_plan(coefficients: Sequence[float]) -> Plan:
    """The output soup, to be sampled by rejection."""
    return implicit_plan(output_soup_plan(coefficients))
