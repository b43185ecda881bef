"""Division: where to make policies so that all pieces of the simplex meet a tolerance alike.

The corner rule cuts the worst piece again and again, so a distance of five times the tolerance ends
as pieces that are better than needed. These rules count the pieces that are needed.

*Two objectives*: the proven distance on an interval falls with the square of its length; the
interval is cut so that its pieces come out alike. The curvature between two policies is that of the
cubic through both best values and slopes (Hermite); a piece's distance is a quarter of the squared
integral of the curvature's root.

*More objectives*: a surrogate predicts which uniform lattice would meet the tolerance. Policies are
made at its preferences, each time at the one nearest to the corner, so that regions where the
distance is met early are left out.

Ours. Nothing that is certified rests on either.
"""

from math import ceil, sqrt

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import NotCertifiedError, NotConvergedError
from palate.core.simplex import lattice
from palate.core.types import PayoffTable
from palate.portfolio.ceiling import ceiling_rows
from palate.portfolio.everybody import Criterion, Stakes
from palate.portfolio.grid import covering_radius, lattice_size
from palate.portfolio.shapes import ByObjective
from palate.portfolio.surrogate import fit_surrogate

N_STEPS = 400  # of the integral over an interval
NEAR = 1.5  # covering radii; a corner with no free lattice preference so near is made itself
ROUNDING = 1e-9  # a count of pieces this near to a whole number is that number


def even_cut(table: PayoffTable, *, at: ByObjective, gap: float, tolerance: float) -> ByObjective:
    """The preference to make a policy for next, between the two policies around `at`.

    The table has two objectives and every policy its preference; `at` is the corner preference with
    the largest distance, the `gap`, in units of the positive `tolerance`. Where one cut is enough,
    it comes back.
    """
    n_pieces = ceil(sqrt(gap / tolerance) - ROUNDING)
    shares = table.preferences[:, 0]
    if n_pieces <= 2 or not np.any(shares < at[0]) or not np.any(shares > at[0]):
        return at
    left = int(np.argmax(np.where(shares < at[0], shares, -np.inf)))
    right = int(np.argmin(np.where(shares > at[0], shares, np.inf)))
    places = np.linspace(shares[left], shares[right], N_STEPS + 1)
    roots = np.sqrt(_curvatures(table, left=left, right=right))
    density = np.linspace(roots[0], roots[1], N_STEPS + 1)
    measure = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2.0)])
    if measure[-1] <= 0.0:
        return at
    share = float(np.interp(measure[-1] * (n_pieces // 2) / n_pieces, measure, places))
    return np.array([share, 1.0 - share])


def lattice_denominator_for(
    table: PayoffTable, *, tolerance: float, criterion: Criterion, max_policies: int
) -> int | None:
    """Denominator of the coarsest lattice predicted to meet the tolerance, within the budget."""
    surrogate = fit_surrogate(table)
    n_objectives = len(table.objectives)
    denominator = 2
    while lattice_size(n_objectives=n_objectives, denominator=denominator) <= max_policies:
        anchors = lattice(n_objectives=n_objectives, denominator=denominator)
        values = surrogate.values(anchors)
        best = np.sum(anchors * values, axis=1)
        try:
            rows = ceiling_rows(preferences=anchors, upper_values=best)
            stakes = Stakes(values=values, rows=rows, criterion=criterion)
            if stakes.gap(list(range(len(anchors)))).value <= tolerance:
                return denominator
        except (NotConvergedError, NotCertifiedError):  # predictions that contradict themselves
            pass
        denominator += 1
    return None


def lattice_anchor(table: PayoffTable, *, at: ByObjective, denominator: int) -> ByObjective:
    """The free preference of the lattice nearest to the corner, or the corner if none is near."""
    n_objectives = len(at)
    anchors = lattice(n_objectives=n_objectives, denominator=denominator)
    taken = np.abs(anchors[:, None, :] - table.preferences[None, :, :]).sum(axis=2).min(axis=1)
    free = anchors[taken > 0.5 / denominator]
    if not len(free):
        return at
    distance = np.abs(free - at).sum(axis=1)
    reach = NEAR * covering_radius(n_objectives=n_objectives, denominator=denominator)
    return free[int(np.argmin(distance))] if distance.min() <= reach else at


def _curvatures(table: PayoffTable, *, left: int, right: int) -> Float[ndarray, " two"]:
    """Second derivatives of the Hermite cubic at both ends, not below zero."""
    width = table.preferences[right, 0] - table.preferences[left, 0]
    slopes = table.values[:, 0] - table.values[:, 1]
    best = np.sum(table.preferences * table.values, axis=1)
    chord = (best[right] - best[left]) / width
    first, last = slopes[left], slopes[right]
    ends = np.array([6 * chord - 4 * first - 2 * last, 2 * first + 4 * last - 6 * chord])
    return np.clip(ends / width, 0.0, None)
