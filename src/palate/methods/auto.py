"""`auto`: the method that was measured to be worth most to this user within the passes allowed.

Every affordable row of `methods.json`, the system prompt and the base included, is compared by the
lower end of its utility's interval for the stated preference; for a belief, by its expectation over
draws. A user's own words are such a belief (`palate.library.words`), and a prompt where they say
nothing of the objectives. With nothing known the choice is the minimax one. A certificate is never
compared with a utility, since it is about single policies.

Source: methods beyond.md, section 4.
"""

from dataclasses import replace

from palate.core.decision import AUTO, Decision, Known, Messages
from palate.core.errors import InvalidInputError
from palate.library.knowledge import CLEAR, can_serve, preference_draws, ranked
from palate.library.library import Library
from palate.library.method_table import MethodRow, MethodTable, Prediction

DEFAULT_PASSES = 1.5  # one pass, and a margin for methods that take a little more


class AutoMethod:
    """The best measured method."""

    name = AUTO

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The decision of the method that `auto` selects, with the reason and the runner-up."""

        def use(method: str, why: str, known: Known = known) -> Decision:
            decision = library.methods[method].decide(library, messages, known)
            return replace(decision, reason=f"{why} {decision.reason}".strip())

        table = library.method_table
        if known.coefficients is not None:
            method = "prompted-soup" if known.instruction else "soup"
            return use(method, "Coefficients are served as a soup.")
        if not library.manifest.experts:
            method = "base" if known.is_empty or not library.instruction(known) else "prompt"
            return use(method, "The library has no experts.")
        if known.preference is not None or (known.belief and known.belief.n_observations):
            if table is None:
                why = "The library's methods were not measured (methods.json)."
                return use("prompted-soup", why)
            why = "No measured method can serve this user within the passes allowed."
            return self._best(library, table, messages, known) or use("soup", why)
        if known.instruction:
            why = "Only the user's own instruction is known, and no objective in it."
            return use("prompt", why)
        if table is None:
            why = "Nothing is known of the user, and the library's methods were not measured."
            return use("base" if library.portfolio is None else "portfolio", why, Known())
        decision = self._minimax(library, table, messages, known)
        return decision or use("base", "Nothing is known of the user.", Known())

    def _best(
        self, library: Library, table: MethodTable, messages: Messages, known: Known
    ) -> Decision | None:
        """The first by lower bound that can serve this user."""
        limit = known.max_passes or DEFAULT_PASSES
        draws = preference_draws(library, known)
        assert draws is not None  # noqa: S101  a preference or a belief is known
        # a prompt was measured with the library's sentences, which a user's own words are not
        unlike = {"prompt"} if known.instruction and known.preference is None else set[str]()
        served = {name for name in library.methods if can_serve(library, name)} - unlike
        every = table.predictions(draws, max_passes=limit)
        predictions = [one for one in every if one.row.method in served]
        for place, best in enumerate(predictions):
            decision = _decision_of(library, messages, known, best.row)
            if decision is not None and decision.n_passes <= limit + CLEAR:
                why = _why(best, predictions[place + 1 :], limit)
                return replace(
                    decision,
                    predicted_utility=best.utility,
                    reason=f"{why} {decision.reason}".strip(),
                )
        return None

    def _minimax(
        self, library: Library, table: MethodTable, messages: Messages, known: Known
    ) -> Decision | None:
        """The smallest largest regret, where nothing is known of the user."""
        limit = known.max_passes or DEFAULT_PASSES
        servable = [name for name in library.methods if can_serve(library, name)]
        choice = table.minimax(max_passes=limit, methods=servable)
        if choice is None:
            return None
        row, point, regret = choice
        named = {
            name: float(share)
            for name, share in zip(table.objectives, table.points[point], strict=True)
            if share > CLEAR
        }
        stand_in = replace(known, preference=named, belief=None)
        decision = _decision_of(library, messages, stand_in, row)
        if decision is None:
            return None
        preference = ", ".join(f"{name} {share:.2g}" for name, share in named.items())
        why = (
            f"Nothing is known of the user; {row.method!r} for {preference} has the smallest "
            f"largest regret over all preferences, {regret:.3f}."
        )
        return replace(decision, reason=f"{why} {decision.reason}")


def _decision_of(
    library: Library, messages: Messages, known: Known, row: MethodRow
) -> Decision | None:
    """A measured method's decision; `None` where it cannot serve this user.

    A belief without words for it cannot be prompted, for example; nothing ranks what nobody wants.
    """
    try:
        decision = library.methods[row.method].decide(library, messages, known)
        return ranked(library, replace(decision, n_candidates=row.n_candidates), known)
    except InvalidInputError:
        return None


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
