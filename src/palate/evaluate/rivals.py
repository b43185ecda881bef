"""Rivals: methods that palate does not serve but is compared with, decided by the same `decide`.

| name | what it is |
|---|---|
| best-expert | the expert worth most to the user, by the portfolio's payoff table |
| rewarded-soup | mean of parameters, as much as one expert (Rame et al. 2023) |
| mod | log-linear pool of the experts, no reference (Shi et al. 2024) |
| mixture-even | the wanted experts pooled evenly: MoPE without its controller |

Coefficients of a sum of one are what these papers serve; palate's soups have the library's own
strength.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from palate.core.decision import Decision, Known, Messages, Method
from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, member_plan
from palate.library.controller import strengths_for, wording_of
from palate.library.library import Library
from palate.mixture.wording import MixtureRequest
from palate.soup.plans import mod_plan, rewarded_soup_plan


class BestExpert:
    """The single expert that is worth most to the user."""

    name = "best-expert"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The expert's plan.

        Raises:
            InvalidInputError: the library has no portfolio, or its table lacks an expert.
        """
        table = None if library.portfolio is None else library.portfolio.record.payoffs.table
        names = library.require_experts()
        if table is None or any(name not in table.policies for name in names):
            raise InvalidInputError(
                "The best expert follows from the payoff table in portfolio.json, which has to "
                "list every expert; select a portfolio, or leave out the method 'best-expert'."
            )
        worth = table.values @ _shares(library, known)
        best = max(names, key=lambda name: float(worth[table.policies.index(name)]))
        plan = member_plan(index=names.index(best), n_experts=len(names))
        reason = f"Of all experts, {best!r} is worth most by the payoff table."
        return Decision(messages, plan, self.name, {best: 1.0}, reason=reason)


@dataclass(frozen=True)
class Mean:
    """A mean over the wanted experts, of their parameters or of their log-probabilities."""

    name: str
    plan: Callable[[Sequence[float]], Plan]  # of coefficients of sum one
    reason: str

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The plan of the preference's shares."""
        strengths = _strengths(library, known)
        plan, named = self.plan(strengths), _named(library, strengths)
        return Decision(messages, plan, self.name, named, reason=self.reason)


class EvenMixture:
    """The wanted experts pooled evenly, reading what the library's mixture reads."""

    name = "mixture-even"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """One row per wanted expert, pooled by even shares."""
        strengths = _strengths(library, known)
        wording = (
            wording_of(library.manifest, library.base, prompts="full")
            if library.controller is None
            else library.controller.wording
        )
        request, named = MixtureRequest(messages, strengths), _named(library, strengths)
        plan, reason = wording.plan(request), "The wanted experts' probabilities in even shares."
        return Decision(wording.full_messages(request), plan, self.name, named, reason=reason)


RIVALS: dict[str, Method] = {
    method.name: method
    for method in (
        BestExpert(),
        Mean("rewarded-soup", rewarded_soup_plan, "The mean of the wanted experts' parameters."),
        Mean("mod", mod_plan, "The mean of the wanted experts' log-probabilities."),
        EvenMixture(),
    )
}


def _shares(library: Library, known: Known) -> Float[ndarray, " objectives"]:
    shares = library.preference(known)
    if shares is None:
        raise InvalidInputError(
            "Nothing is known of the user that a rival could follow; give a preference."
        )
    return shares


def _strengths(library: Library, known: Known) -> tuple[float, ...]:
    """The preference as shares over the experts trained for one objective each."""
    shares = _shares(library, known).tolist()
    named = dict(zip(library.manifest.objective_names, shares, strict=True))
    return strengths_for(library.manifest, named)


def _named(library: Library, strengths: Sequence[float]) -> dict[str, float]:
    """The wanted experts' strengths by name."""
    named = zip(library.bank.names, strengths, strict=True)
    return {name: share for name, share in named if share > 0}
