"""PALM as published: a grid of preferences, one policy for each, the fewest that cover the grid.

Deviations from the paper and choices where it is silent:
    1. The value compared is `J_w = w @ R - beta KL`; the paper's objective line is not known to us.
    2. The best value at a grid preference is that of the best policy made for any of them
       (cross-play), which repairs an oracle that failed at one.
    3. The cover is exact up to 200 policies, for two objectives by a sweep, greedy beyond; the
       paper's rule is not known to us.
    4. With cells, a member must do at every vertex of a cell, which turns a statement about grid
       preferences into one about everybody.

Source:
    PALM, arXiv 2604.04144; palm.md 3.1, 3.3 and 3.2 (lazy grid).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.portfolio.ceiling import ceiling_rows
from palate.portfolio.cover import greedy_cover, smallest_cover, sweep_cover
from palate.portfolio.envelope import best_values
from palate.portfolio.grid import affordable_tolerance, ratio_grid, ratio_grid_size
from palate.portfolio.oracle import Ledger, Oracle
from palate.portfolio.payoffs import Payoffs


@dataclass(frozen=True, kw_only=True)
class PalmSettings:
    """What PALM is asked for.

    Attributes:
        epsilon: Multiplicative tolerance of the grid, positive.
        delta: Additive tolerance of the grid, in reward units, in (0, objectives - 1).
        cover_epsilon: Multiplicative tolerance of the cover.
        cover_delta: Additive tolerance of the cover, in reward units.
        max_calls: Refuse grids with more preferences than this.
        cover: `smallest`, or `greedy` as a baseline.
        is_lazy: Skip grid preferences that the policies made so far provably serve.
    """

    epsilon: float = 0.25
    delta: float = 0.1
    cover_epsilon: float = 0.0
    cover_delta: float = 0.02
    max_calls: int = 1000
    cover: Literal["smallest", "greedy"] = "smallest"
    is_lazy: bool = False


@dataclass(frozen=True, eq=False)
class PalmPortfolio:
    """What PALM found.

    Attributes:
        payoffs: Of every policy made.
        members: Indices of those that cover the grid, ascending.
        anchors: `[grid, objectives]`, the grid.
        n_calls: Policies made.
    """

    payoffs: Payoffs
    members: tuple[int, ...]
    anchors: Float[ndarray, "grid objectives"]
    n_calls: int


def palm(oracle: Oracle, settings: PalmSettings) -> PalmPortfolio:
    """Make a policy for every grid preference and keep the fewest that cover the grid.

    Raises:
        InvalidInputError: a tolerance out of range, or a grid of more than `max_calls` preferences.
    """
    n_objectives = len(oracle.objectives)
    _require_affordable(n_objectives, settings)
    anchors = ratio_grid(n_objectives=n_objectives, epsilon=settings.epsilon, delta=settings.delta)
    ledger = Ledger(oracle)
    if settings.is_lazy:
        _make_lazily(ledger, anchors=anchors, settings=settings)
    else:
        for anchor in anchors:
            ledger.policy(anchor)
    payoffs = ledger.payoffs()
    is_covered = grid_coverage(
        values=payoffs.table.values,
        preferences=anchors,
        epsilon=settings.cover_epsilon,
        delta=settings.cover_delta,
    )
    members = _cover(is_covered, anchors=anchors, settings=settings)
    return PalmPortfolio(payoffs, tuple(sorted(members)), anchors, len(ledger.calls))


def grid_coverage(
    *,
    values: Float[ndarray, "policies objectives"],
    preferences: Float[ndarray, "grid objectives"],
    epsilon: float,
    delta: float,
) -> ndarray:
    """`[grid, policies]`: which policy is within tolerance of the best one at which preference."""
    worth = preferences @ values.T
    return worth >= (1.0 - epsilon) * worth.max(axis=1, keepdims=True) - delta - 1e-12


def _cover(
    is_covered: ndarray, *, anchors: Float[ndarray, "grid objectives"], settings: PalmSettings
) -> list[int]:
    if settings.cover == "greedy":
        return greedy_cover(is_covered)
    if anchors.shape[1] == 2:
        return sweep_cover(is_covered[np.argsort(anchors[:, 0])])
    return smallest_cover(is_covered)


def _make_lazily(
    ledger: Ledger, *, anchors: Float[ndarray, "grid objectives"], settings: PalmSettings
) -> None:
    """Coarse to fine: unit vectors, then those with the largest shares unequal least.

    A preference is skipped when its lower bound is within tolerance of its upper bound.
    """
    units = np.eye(anchors.shape[1])
    for unit in units:
        ledger.policy(unit)
    order = np.lexsort(np.round(anchors.T, 12))
    for anchor in anchors[order[np.argsort(_depth(len(order)), kind="stable")]]:
        table = ledger.payoffs().table
        rows = ceiling_rows(
            preferences=table.preferences,
            upper_values=np.sum(table.preferences * table.values, axis=1),
        )
        upper = float(best_values(preferences=anchor[None, :], values=rows)[0])
        lower = float(best_values(preferences=anchor[None, :], values=table.values)[0])
        if lower < (1.0 - settings.epsilon) * upper - settings.delta:
            ledger.policy(anchor)


def _depth(n_anchors: int) -> ndarray:
    """Position in a coarse-to-fine walk: every 16th anchor first, then every 8th, and so on."""
    index = np.arange(n_anchors)
    return np.where(
        index % 16 == 0,
        0,
        np.where(index % 8 == 0, 1, np.where(index % 4 == 0, 2, np.where(index % 2 == 0, 3, 4))),
    )


def _require_affordable(n_objectives: int, settings: PalmSettings) -> None:
    size = ratio_grid_size(
        n_objectives=n_objectives, epsilon=settings.epsilon, delta=settings.delta
    )
    if size > settings.max_calls and not settings.is_lazy:
        affordable = affordable_tolerance(n_objectives=n_objectives, max_calls=settings.max_calls)
        raise InvalidInputError(
            f"The grid for epsilon={settings.epsilon}, delta={settings.delta} has {size} "
            f"preferences, more than max_calls={settings.max_calls}; use epsilon = delta = "
            f"{affordable:g}, or search adaptively."
        )
