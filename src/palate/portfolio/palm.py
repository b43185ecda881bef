"""PALM: a grid of preferences, one policy for each, and the fewest policies that cover the grid.

    W     = ratio_grid(d, epsilon, delta)                    preferences with geometric ratios
    pi_g  = oracle(W_g),  V_g = R(pi_g) - beta KL(pi_g)      one policy and its values for each
    S_ug  = W_u @ V_g                                        value of policy g for preference u
    P     = min_cover{ S_ug >= (1 - epsilon_1) max_g S_ug - delta_1 }

The grid's policies serve every user within a factor `1 + epsilon` and an amount `delta` of the
best; the members serve every grid preference within `epsilon_1, delta_1` of the grid's policies.

Deviations from the paper, and choices where it is silent:
    1. The value compared is `J_w = w @ R - beta KL`; the paper's objective line is not known to us.
    2. The best value at a grid preference is that of the best policy made for any of them
       (cross-play), which repairs an oracle that failed at one.
    3. The cover is exact for two objectives and up to 200 policies, greedy beyond; the paper's rule
       is not known to us.
    4. The lazy grid (a later revision of the paper mentions one without details) walks from coarse
       to fine and skips a preference whose proven loss is within tolerance already.

Source: PALM, arXiv 2604.04144; palm.md 3.1 to 3.3, P5 and P8.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from palate.core.errors import InvalidInputError
from palate.portfolio.adaptive import Ledger, Oracle
from palate.portfolio.ceiling import ceiling_rows
from palate.portfolio.grid import affordable_tolerances, ratio_grid, ratio_grid_size
from palate.portfolio.payoffs import Payoffs
from palate.portfolio.selection import smallest_cover, sweep_cover
from palate.portfolio.shapes import ByObjective, PolicyValues

ROUNDING = 1e-12  # values nearer than this are equal


@dataclass(frozen=True, kw_only=True)
class PalmSettings:
    """Tolerances of the grid and of the cover."""

    epsilon: float = 0.25  # multiplicative, of the grid; positive
    delta: float = 0.1  # additive, of the grid; reward units, in (0, objectives - 1)
    cover_epsilon: float = 0.0  # multiplicative, of the cover
    cover_delta: float = 0.02  # additive, of the cover; reward units
    max_calls: int = 1000  # larger grids are refused
    is_lazy: bool = False  # skip preferences that the policies so far provably serve


@dataclass(frozen=True, eq=False)
class PalmPortfolio:
    """The policies of a grid and the members that cover it."""

    payoffs: Payoffs  # of every policy
    members: tuple[int, ...]  # indices of policies, ascending
    anchors: Float[np.ndarray, "grid objectives"]
    n_calls: int


def palm(oracle: Oracle, settings: PalmSettings) -> PalmPortfolio:
    """Make a policy for every grid preference and select the fewest that cover the grid.

    Raises:
        InvalidInputError: a tolerance out of range, or a grid of more than `max_calls` preferences.
    """
    n_objectives = len(oracle.objectives)
    _require_affordable(n_objectives, settings)
    anchors = ratio_grid(  # W, palm.md 3.1
        n_objectives=n_objectives, epsilon=settings.epsilon, delta=settings.delta
    )
    ledger = Ledger(oracle)
    for anchor in _unserved(ledger, anchors, settings) if settings.is_lazy else anchors:
        ledger.policy(anchor)  # pi_g = oracle(W_g)
    payoffs = ledger.payoffs()
    is_covered = grid_coverage(
        values=payoffs.table.values,  # V_g = R - beta KL
        preferences=anchors,
        epsilon=settings.cover_epsilon,
        delta=settings.cover_delta,
    )
    if n_objectives == 2:  # coverage sets are intervals: one sweep is exact, palm.md 3.3
        members = sweep_cover(is_covered[np.argsort(anchors[:, 0])])
    else:
        members = smallest_cover(is_covered)
    return PalmPortfolio(payoffs, tuple(sorted(members)), anchors, len(ledger.calls))


def grid_coverage(
    *,
    values: PolicyValues,
    preferences: Float[np.ndarray, "grid objectives"],
    epsilon: float,
    delta: float,
) -> Bool[np.ndarray, "grid policies"]:
    """Which policy is within tolerance of the best one at which preference."""
    worth = preferences @ values.T  # S
    return worth >= (1.0 - epsilon) * worth.max(axis=1, keepdims=True) - delta - ROUNDING


def _unserved(
    ledger: Ledger, anchors: Float[np.ndarray, "grid objectives"], settings: PalmSettings
) -> Iterator[ByObjective]:
    """Unit vectors, then every 16th anchor, every 8th and so on; served ones are skipped."""
    yield from np.eye(anchors.shape[1])
    order = np.lexsort(np.round(anchors.T, 12))
    place = np.arange(len(order))
    depth = sum((place % step != 0).astype(int) for step in (16, 8, 4, 2))
    for anchor in anchors[order[np.argsort(depth, kind="stable")]]:
        table = ledger.payoffs().table
        best_made = np.sum(table.preferences * table.values, axis=1)
        rows = ceiling_rows(preferences=table.preferences, upper_values=best_made)
        lower, upper = np.max(table.values @ anchor), np.max(rows @ anchor)  # L and U, P4
        if lower < (1.0 - settings.epsilon) * upper - settings.delta:
            yield anchor


def _require_affordable(n_objectives: int, settings: PalmSettings) -> None:
    size = ratio_grid_size(
        n_objectives=n_objectives, epsilon=settings.epsilon, delta=settings.delta
    )
    if size > settings.max_calls and not settings.is_lazy:
        widest, _ = affordable_tolerances(n_objectives=n_objectives, max_calls=settings.max_calls)
        raise InvalidInputError(
            f"The grid for epsilon={settings.epsilon}, delta={settings.delta} has {size} "
            f"preferences, more than max_calls={settings.max_calls}; use epsilon = delta = "
            f"{widest:g}, or search adaptively."
        )
