"""`auto`: the method that was measured to be worth most to this user within the passes allowed.

Every affordable row of `methods.json`, the system prompt and the base included, is compared by the
lower end of its utility's interval for the stated preference; for a belief, by its expectation over
draws. With nothing known the choice is the minimax one. A certificate is never compared with a
utility: it speaks of single policies.

Source: methods beyond.md, section 4.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.decision import Decision, Known, Messages
from palate.core.seeds import generator_for
from palate.core.types import Belief
from palate.library.library import Library
from palate.library.method_table import MethodTable, Prediction

DEFAULT_PASSES = 1.5  # one pass, and room for what takes a little more
N_DRAWS = 64  # of a belief
CLEAR = 1e-9  # shares below are zero


class AutoMethod:
    """The best measured method."""

    name = "auto"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The decision of the method that was taken, with the reason and the runner-up."""
        if known.coefficients is not None:
            method = "prompted-soup" if known.instruction else "soup"
            return _taken(library, messages, known, method, "Coefficients are served as a soup.")
        if not library.manifest.experts:
            method = "base" if known.is_empty or not library.instruction(known) else "prompt"
            return _taken(library, messages, known, method, "The library has no experts.")
        if known.preference is None and (known.belief is None or not known.belief.n_observations):
            return self._unknown(library, messages, known)
        table = library.method_table
        if table is None:
            why = "The library's methods were not measured (methods.json)."
            return _taken(library, messages, known, "prompted-soup", why)
        return self._best(library, table, messages, known)

    def _best(
        self, library: Library, table: MethodTable, messages: Messages, known: Known
    ) -> Decision:
        limit = DEFAULT_PASSES if known.max_passes is None else known.max_passes
        draws = preference_draws(library, known)
        found = [
            one
            for one in table.predictions(draws, max_passes=limit)
            if one.row.method in library.methods and can_serve(library, one.row.method)
        ]
        if not found:
            why = f"No measured method takes {limit:g} passes or less."
            return _taken(library, messages, known, "prompted-soup", why)
        best = found[0]
        decision = library.methods[best.row.method].decide(library, messages, known)
        reason = f"{_why(best, found[1:], limit)} {decision.reason}".strip()
        return replace(
            decision,
            n_candidates=best.row.n_candidates,
            predicted_utility=best.utility,
            reason=reason,
        )

    def _unknown(self, library: Library, messages: Messages, known: Known) -> Decision:
        """Nothing says what the user wants beyond, perhaps, their own words."""
        if known.instruction:
            why = "Only the user's own words are known."
            return _taken(library, messages, known, "prompt", why)
        table = library.method_table
        if table is None:
            why = "Nothing is known of the user, and the library's methods were not measured."
            method = "base" if library.portfolio is None else "portfolio"
            return _taken(library, messages, Known(), method, why)
        limit = DEFAULT_PASSES if known.max_passes is None else known.max_passes
        choice = table.minimax(max_passes=limit)
        if choice is None:
            return _taken(library, messages, Known(), "base", "Nothing is known of the user.")
        row, point, regret = choice
        shares = table.points[point]
        named = {
            name: float(share)
            for name, share in zip(table.objectives, shares, strict=True)
            if share > CLEAR
        }
        stand_in = replace(known, preference=named, belief=None)
        decision = library.methods[row.method].decide(library, messages, stand_in)
        shown = ", ".join(f"{name} {share:.2g}" for name, share in named.items())
        why = (
            f"Nothing is known of the user; {row.method!r} for {shown} has the smallest largest "
            f"regret over all preferences, {regret:.3f}."
        )
        ranking = named if row.n_candidates > 1 else {}
        return replace(
            decision,
            n_candidates=row.n_candidates,
            ranking=ranking,
            reason=f"{why} {decision.reason}",
        )


def preference_draws(library: Library, known: Known) -> Float[ndarray, "draws objectives"]:
    """`[draws, objectives]`: the stated preference alone, or draws from the belief.

    A draw of coefficients becomes the preference that its anchors add up to; what is negative
    counts as not wanted. The draws depend on the belief alone, so a decision does too.
    """
    if known.preference is not None or known.belief is None:
        shares = library.preference(known)
        assert shares is not None  # noqa: S101  the caller knows one of the two
        return shares[None, :]
    return belief_draws(known.belief, anchors=library.anchors)


def belief_draws(
    belief: Belief, *, anchors: Float[ndarray, "experts objectives"], n_draws: int = N_DRAWS
) -> Float[ndarray, "draws objectives"]:
    """`[draws, objectives]`: preferences drawn from a belief over coefficients."""
    generator = generator_for(0, "preference draws")
    draws = generator.multivariate_normal(
        belief.mean, belief.covariance, size=n_draws, method="eigh"
    )
    wanted = np.maximum(draws @ anchors, 0.0)
    totals = wanted.sum(axis=1, keepdims=True)
    even = np.full_like(wanted, 1.0 / wanted.shape[1])
    return np.where(totals > CLEAR, wanted / np.maximum(totals, CLEAR), even)


def can_serve(library: Library, method: str) -> bool:
    """Whether the library has the part that the method needs."""
    needed = {"portfolio": library.portfolio, "mixture": library.controller}
    return needed.get(method, True) is not None


def _taken(library: Library, messages: Messages, known: Known, method: str, why: str) -> Decision:
    decision = library.methods[method].decide(library, messages, known)
    return replace(decision, reason=f"{why} {decision.reason}".strip())


def _why(best: Prediction, others: list[Prediction], limit: float) -> str:
    utility = best.utility
    sentence = (
        f"{_label(best)} was measured to gain {utility.estimate:+.3f} [{utility.low:+.3f}, "
        f"{utility.high:+.3f}] over the base for this preference, the best lower bound within "
        f"{limit:g} passes"
    )
    if not others:
        return f"{sentence}."
    second = others[0]
    ahead = utility.low - second.utility.low
    return f"{sentence}; {_label(second)} follows {ahead:.3f} behind."


def _label(one: Prediction) -> str:
    n = one.row.n_candidates
    return f"{one.row.method}, best of {n}," if n > 1 else one.row.method
