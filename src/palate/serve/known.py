"""What is known of a user: what the request says, or else what was learned, or else stated."""

from dataclasses import replace

from palate.core.decision import Known
from palate.library.knowledge import merged
from palate.serve.auth import Caller
from palate.serve.state import Served
from palate.serve.wire.palate import LearningState, PalateIn
from palate.store.users import find


async def known_of(
    served: Served, caller: Caller, palate: PalateIn
) -> tuple[Known, LearningState, int]:
    """What a method may decide from, whether a belief is in it, and the feedback it rests on.

    A preference or coefficients in the request take precedence over a belief that is applied, and
    that over the preference that the user stated before. The user's own words are those of the
    request, or else those that were stored, where the request states no preference.
    """
    given = Known(
        preference=palate.preference,
        coefficients=palate.coefficients,
        instruction=(palate.instruction or "").strip() or None,
        strength=palate.strength,
        max_passes=palate.max_passes,
    )
    if palate.user is None:
        return given, "nothing", 0
    user, tenant = palate.user, caller.tenant
    belief = await served.in_database(lambda: served.store(tenant).belief(user))
    n_feedback = belief.n_observations if belief is not None else 0
    state = served.believer.state(belief)
    if palate.preference is not None or palate.coefficients is not None:
        state = "observing" if state == "applied" else state
    stated = await served.in_database(lambda: find(served.database, tenant=tenant, name=user))
    kept = Known(
        preference=None if stated is None else stated.preference,
        instruction=None if stated is None else stated.instruction,
    )
    if belief is not None and served.believer.state(belief) == "applied":
        kept = replace(kept, preference=None, belief=belief)
    return merged(given, kept), state, n_feedback
