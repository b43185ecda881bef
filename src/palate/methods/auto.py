"""`auto`: the method that was measured to be worth most to this user within the passes allowed.

Every affordable row of `methods.json`, the system prompt and the base included, is compared by the
lower end of its utility's interval for the stated preference; for a belief, by its expectation over
draws. With nothing known the choice is the minimax one. A certificate is never compared with a
utility: it speaks of single policies.

Source: methods beyond.md, section 4.
"""

from dataclasses import replace

from palate.core.decision import Decision, Known, Messages
from palate.core.errors import InvalidInputError
from palate.library.knowledge import CLEAR, can_serve, preference_draws
from palate.library.library import Library
from palate.library.method_table import MethodRow, MethodTable, Prediction

DEFAULT_PASSES = 1.5  # one pass, and room for what takes a little more


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
        assert draws is not None  # noqa: S101  a preference or a belief is known
        found = [
            one
            for one in table.predictions(draws, max_passes=limit)
            if one.row.method in library.methods and can_serve(library, one.row.method)
        ]
        for place, best in enumerate(found):
            decision = _followed(library, messages, known, best.row)
            if decision is None or decision.n_passes > limit + CLEAR:
                continue
            return replace(
                decision,
                predicted_utility=best.utility,
                reason=f"{_why(best, found[place + 1 :], limit)} {decision.reason}".strip(),
            )
        why = f"No measured method follows this user within {limit:g} passes."
        return _taken(library, messages, known, "soup", why)

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
        servable = [name for name in library.methods if can_serve(library, name)]
        choice = table.minimax(max_passes=limit, methods=servable)
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
        decision = _followed(library, messages, stand_in, row)
        if decision is None:
            return _taken(library, messages, Known(), "base", "Nothing is known of the user.")
        shown = ", ".join(f"{name} {share:.2g}" for name, share in named.items())
        why = (
            f"Nothing is known of the user; {row.method!r} for {shown} has the smallest largest "
            f"regret over all preferences, {regret:.3f}."
        )
        ranking = named if row.n_candidates > 1 else {}
        return replace(decision, ranking=ranking, reason=f"{why} {decision.reason}")


def _followed(
    library: Library, messages: Messages, known: Known, row: MethodRow
) -> Decision | None:
    """The decision of a measured method; `None` where it cannot follow this user.

    A belief that comes to nothing to put into words cannot be prompted, for example.
    """
    try:
        decision = library.methods[row.method].decide(library, messages, known)
    except InvalidInputError:
        return None
    return replace(decision, n_candidates=row.n_candidates)


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
