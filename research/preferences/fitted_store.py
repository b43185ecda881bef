"""Users fitted from verdicts on anybody's answers, in a store that serves them.

A user's vector over the rewards becomes a preference: shares of what is wanted, in deviations of
each reward over the verdicts. Wanting less of an objective is wanting its opposite, where another
objective is that; without one it has no share. Length and embeddings belong to no objective and
are left out. Where the verdicts do not show that vectors are personal, everybody gets the
population's. Comparisons in the store correct a preference later, as any that a user states.
"""

from collections.abc import Mapping

from palate import UserStore
from palate.core.types import Objective
from research.preferences.verdicts import FittedUsers


def shares_of(
    wanted: Mapping[str, float], objectives: tuple[Objective, ...]
) -> dict[str, float] | None:
    """Shares by objective, sum one, of coefficients by reward; `None` where nothing is wanted."""
    of = {one.name: wanted.get(one.name, 0.0) for one in objectives}
    net = dict.fromkeys(of, 0.0)
    for one in objectives:
        net[one.name] += max(of[one.name], 0.0)
        if one.opposite in net:
            net[one.opposite] += max(-of[one.name], 0.0)
    for one in objectives:
        if one.opposite in net:
            less = min(net[one.name], net[one.opposite])
            net[one.name] -= less
            net[one.opposite] -= less
    total = sum(net.values())
    if total < 1e-9:
        return None
    return {name: value / total for name, value in net.items() if value > 0}


def load_into(
    store: UserStore, fitted: FittedUsers, objectives: tuple[Objective, ...]
) -> dict[str, dict[str, float] | None]:
    """Every user's preference, now in the store; `None` for who wants nothing of the objectives."""
    loaded: dict[str, dict[str, float] | None] = {}
    for place, user in enumerate(fitted.users):
        vector = fitted.means[place] if fitted.is_personal else fitted.population
        wanted = dict(zip(fitted.features, vector.tolist(), strict=True))
        loaded[user] = shares_of(wanted, objectives)
        store.set_preference(user, loaded[user])
    return loaded
