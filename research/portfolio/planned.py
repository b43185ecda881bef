"""Planned search: a fixed number of members, anchors placed by foresight.

Adaptive search makes policies where the proven distance is largest, which serves a certificate.
A portfolio of few members wants something else: the best places for all members together. So the
search begins adaptively until a surrogate foresees new policies well enough. Then the best
portfolio of the wanted size is chosen among policies made and foreseen, at most as many foreseen
ones as calls remain; the foreseen member that would be missed most is made; and the plan is drawn
up again.

Ours; nothing is certified by it. The final members are chosen among real policies only.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.simplex import lattice
from palate.portfolio.adaptive import Ledger, Oracle, Proposal, SearchSettings, steps
from palate.portfolio.ceiling import ceiling_rows
from palate.portfolio.division import fit_surrogate
from palate.portfolio.everybody import Criterion
from palate.portfolio.payoffs import Payoffs
from palate.portfolio.selection import best_listed
from research.portfolio.baselines import uniform_anchors

FRESH_DISTANCE = 1e-3  # L1; nearer to a policy than this, another one would be the same
# Of the proven distance; a surrogate that errs by less is planned with. Chosen on the yardstick,
# where it errs by less than 0.05 or by more than 0.16 after one policy more than objectives.
TRUSTED_SHARE = 0.1
MEAN_SHARE = 1e-3  # of the mean loss, breaks ties of the worst
DENOMINATORS = {2: 400, 3: 30, 4: 12, 5: 8, 6: 6}  # of the lattice of foreseen anchors


@dataclass(frozen=True, kw_only=True)
class PlannedSettings:
    """How many members, from how many policies.

    Attributes:
        size: Members wanted.
        max_calls: Policies to make, at least `size`.
        criterion: Losses in reward units, or as a share of the best value.
    """

    size: int
    max_calls: int
    criterion: Criterion = "multiplicative"


@dataclass(frozen=True, eq=False)
class PlannedPortfolio:
    """What the search found.

    Attributes:
        payoffs: Of every policy made, in order.
        members: Indices of the members, ascending.
    """

    payoffs: Payoffs
    members: tuple[int, ...]


def planned(oracle: Oracle, settings: PlannedSettings) -> PlannedPortfolio:
    """Make `max_calls` policies and keep the best `size` of them.

    Raises:
        InvalidInputError: fewer calls than members, or than objectives.
    """
    n_objectives = len(oracle.objectives)
    _require_settings(settings, n_objectives=n_objectives)
    ledger = Ledger(oracle)
    _explore(ledger, settings)
    users = lattice(n_objectives=n_objectives, denominator=DENOMINATORS.get(n_objectives, 5))
    while True:
        payoffs = ledger.payoffs()
        losses, fresh = _foreseen_losses(payoffs, users=users, criterion=settings.criterion)
        n_made = payoffs.n_policies
        members, _ = best_listed(losses[:, :n_made], size=min(settings.size, n_made))
        if n_made >= settings.max_calls:
            return PlannedPortfolio(payoffs, tuple(members))
        plan = planned_members(
            losses,
            members=members,
            size=settings.size,
            n_made=n_made,
            n_left=settings.max_calls - n_made,
        )
        ledger.policy(_next_preference(losses, plan=plan, fresh=fresh, users=users, n_made=n_made))


def planned_members(
    losses: Float[ndarray, "users policies"],
    *,
    members: list[int],
    size: int,
    n_made: int,
    n_left: int,
) -> list[int]:
    """The best members found by adding and swapping, at most `n_left` of them foreseen.

    Args:
        losses: `[users, policies]`, policies made first, then foreseen ones.
        members: Where to start, policies made.
        size: How many members.
        n_made: How many policies were made.
        n_left: How many may still be made.
    """
    chosen = list(members)
    while len(chosen) < size:
        rest = losses[:, chosen].min(axis=1, initial=np.inf)
        costs = _costs(np.minimum(rest[:, None], losses))
        costs[chosen] = np.inf
        chosen.append(int(np.argmin(costs)))
    current = float(_costs(losses[:, chosen].min(axis=1)))
    while True:
        swaps = [
            _best_swap(losses, chosen, position, n_made=n_made, n_left=n_left)
            for position in range(size)
        ]
        cost, position, policy = min(swaps)
        if cost >= current - 1e-12:
            return chosen
        chosen[position], current = policy, cost


def _best_swap(
    losses: Float[ndarray, "users policies"],
    chosen: list[int],
    position: int,
    *,
    n_made: int,
    n_left: int,
) -> tuple[float, int, int]:
    others = chosen[:position] + chosen[position + 1 :]
    rest = losses[:, others].min(axis=1, initial=np.inf)
    costs = _costs(np.minimum(rest[:, None], losses))
    costs[others] = np.inf
    if sum(policy >= n_made for policy in others) >= n_left:
        costs[n_made:] = np.inf
    policy = int(np.argmin(costs))
    return float(costs[policy]), position, policy


def _next_preference(
    losses: Float[ndarray, "users policies"],
    *,
    plan: list[int],
    fresh: Float[ndarray, "foreseen objectives"],
    users: Float[ndarray, "users objectives"],
    n_made: int,
) -> Float[ndarray, " objectives"]:
    """The planned anchor that would be missed most; without one, who loses most."""
    wanted = [policy for policy in plan if policy >= n_made]
    if wanted:
        missed = [
            float(_costs(losses[:, [p for p in plan if p != policy]].min(axis=1, initial=np.inf)))
            for policy in wanted
        ]
        return fresh[wanted[int(np.argmax(missed))] - n_made]
    order = np.argsort(-losses[:, plan].min(axis=1), kind="stable")
    is_fresh = [bool(np.any(np.all(users[user] == fresh, axis=1))) for user in order]
    return users[order[int(np.argmax(is_fresh))]]


def _foreseen_losses(
    payoffs: Payoffs, *, users: Float[ndarray, "users objectives"], criterion: Criterion
) -> tuple[Float[ndarray, "users policies"], Float[ndarray, "foreseen objectives"]]:
    """Losses with policies made, then foreseen; and the anchors of the latter."""
    table = payoffs.table
    surrogate = fit_surrogate(table)
    distance = np.abs(users[:, None, :] - table.preferences[None, :, :]).sum(axis=2).min(axis=1)
    fresh = users[distance > FRESH_DISTANCE]
    foreseen = surrogate.values(fresh)
    known = np.sum(table.preferences * table.values, axis=1)
    excess = np.max(table.preferences @ foreseen.T - known[:, None], axis=0)
    foreseen -= np.clip(excess, 0.0, None)[:, None]  # none beats the best where that is known
    made = users @ table.values.T
    best = np.maximum(np.sum(surrogate.values(users) * users, axis=1), made.max(axis=1))
    worth = np.column_stack([made, users @ foreseen.T])
    if criterion == "additive":
        return best[:, None] - worth, fresh
    return 1.0 - worth / np.maximum(best, 1e-300)[:, None], fresh


def _explore(ledger: Ledger, settings: PlannedSettings) -> None:
    """Adaptive policies until the surrogate is to be trusted, one call per member left if possible.

    Where it is not to be trusted and no call can be spared for learning more, uniform anchors are
    made instead, those farthest from the policies made first.
    """
    n_objectives = len(ledger.objectives)
    least = max(n_objectives + 1, min(settings.size, settings.max_calls - settings.size))
    rules = SearchSettings(
        tolerance=0.0,
        max_calls=settings.max_calls,
        criterion=settings.criterion,
    )
    before: Proposal | None = None
    for state in steps(ledger, rules):
        n_made = state.payoffs.n_policies
        is_trusted = before is not None and _is_foreseen(before, state)
        if n_made >= settings.max_calls - 1 or (n_made >= least and is_trusted):
            return
        if n_made >= least and settings.max_calls < 2 * settings.size:
            break
        before = state
    _make_uniform(ledger, settings)


def _make_uniform(ledger: Ledger, settings: PlannedSettings) -> None:
    anchors = uniform_anchors(n_objectives=len(ledger.objectives), size=settings.size)
    while len(ledger.calls) < settings.max_calls:
        distance = np.abs(anchors[:, None, :] - np.array(ledger.calls)[None, :, :]).sum(axis=2)
        farthest = int(np.argmax(distance.min(axis=1)))
        if distance[farthest].min() <= FRESH_DISTANCE:
            return
        ledger.policy(anchors[farthest])


def _is_foreseen(before: Proposal, after: Proposal) -> bool:
    """Whether the newest policy was worth about what the surrogate had said."""
    table = before.payoffs.table
    newest = after.payoffs.table
    at = newest.preferences[-1]
    error = abs(float(at @ fit_surrogate(table).values(at[None, :])[0] - at @ newest.values[-1]))
    upper = np.sum(table.preferences * table.values, axis=1)
    ceiling = ceiling_rows(preferences=table.preferences, upper_values=upper)
    distance = float(np.max(ceiling @ at) - np.max(table.values @ at))
    return error <= TRUSTED_SHARE * distance


def _costs(losses: Float[ndarray, "users *options"]) -> Float[ndarray, "*options"]:
    return losses.max(axis=0) + MEAN_SHARE * losses.mean(axis=0)


def _require_settings(settings: PlannedSettings, *, n_objectives: int) -> None:
    least = max(settings.size, n_objectives)
    if settings.size < 1 or settings.max_calls < least:
        raise InvalidInputError(
            f"{settings.max_calls} calls cannot make {settings.size} members for {n_objectives} "
            f"objectives; allow at least {least}."
        )
