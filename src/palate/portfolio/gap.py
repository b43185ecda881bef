"""Gap: the largest loss of any user, exactly, over the whole simplex.

With only the members, a user with preference `w` loses

    max_r rows[r] @ w - max_k V_k @ w

where a row stands for a policy the user could have instead, or for a piece of a bound on all
policies (`ceiling.py`). The first term is convex and the second linear on every member's cell, so
the loss is largest at a corner preference; so is the ratio where both terms are non-negative. One
matrix product prices all rows at all corners. A mixture `m` of members proves the largest loss: no
user loses more to row `r` than the largest entry of `r - m @ V`, and this bound is reported. The
mixture comes from the members tied at the corner; where that one does not prove the loss to
rounding, from the dual of one linear program. Where the corners are too many to list, one linear
program per row gives the same number.

Source: palm.md P4; Roijers et al. 2015 for corners; linear programming duality for the bound.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog, nnls

from palate.core.errors import InvalidInputError, NotConvergedError
from palate.portfolio.envelope import best_values, corner_preferences, is_enumerable
from palate.portfolio.shapes import ByMember, ByObjective, Corners, MemberValues, RowValues

BLOCK = 65_536  # losses priced in one product: half a megabyte stays in the cache
SCREEN_ROWS = 1024  # rows priced first, to find a loss that screens the rest
SCREEN_CORNERS = 32  # with fewer corners, pricing every row is quicker than screening
SCREEN_MARGIN = 1e-12  # a row is dropped only if it loses less by more than rounding
AGREEMENT = 1e-9  # between vertices and the linear program, in value units scaled to one
ROUNDING = 1e-13  # by which a mixture's bound may exceed the loss that it proves, scaled to one

Rule = Literal["vertices", "programs"]


@dataclass(frozen=True, eq=False)
class Gap:
    """The largest loss of any user and what proves it."""

    value: float  # proven upper bound; differs from the loss at `preference` by rounding
    preference: ByObjective  # of the user who loses most
    row: int  # what that user would rather have
    mixture: ByMember  # on the simplex; `mixture_bound` of it is `value`
    rule: Rule  # all corners were priced, or one linear program per row was solved


def additive_gap(*, members: MemberValues, rows: RowValues) -> Gap:
    """The largest additive loss `max_r rows[r] @ w - max_k members[k] @ w` over all `w`.

    Members and rows, what users could have instead, are in reward units; higher is better.

    Raises:
        InvalidInputError: shapes that do not fit, or a number that is not finite.

    Example:
        >>> import numpy as np
        >>> gap = additive_gap(members=np.eye(2), rows=np.array([[0.9, 0.9]]))
        >>> round(gap.value, 12), gap.preference.tolist()
        (0.4, [0.5, 0.5])
    """
    _require_rows(members=members, rows=rows)
    corners = _corners_or_none(members)
    if corners is None:
        gaps = (replace(program_gap(members=members, row=row), row=r) for r, row in enumerate(rows))
        return max(gaps, key=lambda gap: gap.value)
    ground = best_values(preferences=corners, values=members)
    corner, row, value = _best_priced(corners=corners, ground=ground, rows=rows, members=members)
    mixture = _mixture_at(corners[corner], members=members, row=rows[row], loss=value)
    bound = mixture_bound(members=members, row=rows[row], mixture=mixture)
    if abs(bound - value) <= ROUNDING * max(1.0, abs(value)):
        return Gap(bound, corners[corner], row, mixture, "vertices")
    checked = program_gap(members=members, row=rows[row])
    if checked.value < value - AGREEMENT * max(1.0, abs(value)):
        raise NotConvergedError(
            f"The linear program finds a loss of {checked.value:.12g} where the corners have "
            f"{value:.12g}.",
            last=value,
            gap=value - checked.value,
        )
    return replace(checked, row=row, preference=corners[corner], rule="vertices")


def multiplicative_gap(*, members: MemberValues, rows: RowValues) -> Gap | None:
    """The largest share `1 - max_k members[k] @ w / max_r rows[r] @ w` that any user loses.

    By Dinkelbach's iteration: the share is the `s` at which nobody loses anything to the rows
    shrunk by `1 - s`. The last additive gap proves it.

    Returns:
        The gap in [0, 1], or `None` where the best member is worth less than nothing to some user:
        the ratio says nothing there.

    Raises:
        InvalidInputError: shapes that do not fit, or a number that is not finite.
        NotConvergedError: the iteration did not settle.

    Source: Dinkelbach 1967, "On nonlinear fractional programming".
    """
    if least_best_value(members) < 0.0:
        return None
    share, gap = 0.0, additive_gap(members=members, rows=rows)
    for _ in range(100):
        best = float(np.max(rows @ gap.preference))
        if gap.value <= AGREEMENT * 1e-3 * max(1.0, abs(best)) or best <= 0.0:
            return replace(gap, value=min(1.0, share + max(gap.value, 0.0) / max(best, 1e-300)))
        share = 1.0 - float(np.max(members @ gap.preference)) / best
        gap = additive_gap(members=members, rows=(1.0 - share) * rows)
    raise NotConvergedError("The multiplicative gap did not settle.", last=share, gap=gap.value)


def program_gap(*, members: MemberValues, row: ByObjective) -> Gap:
    """The largest loss to one row, by a linear program; the value is its dual bound.

    Raises:
        NotConvergedError: HiGHS did not solve it.
    """
    n_members, n_objectives = members.shape
    solution = linprog(
        np.append(-row, 1.0),
        A_ub=np.column_stack([members, -np.ones(n_members)]),
        b_ub=np.zeros(n_members),
        A_eq=np.append(np.ones(n_objectives), 0.0)[None, :],
        b_eq=[1.0],
        bounds=[*[(0.0, None)] * n_objectives, (None, None)],
        method="highs",
    )
    if solution.status != 0:
        raise NotConvergedError(f"HiGHS did not solve a gap's linear program: {solution.message}")
    mixture = np.clip(-solution.ineqlin.marginals, 0.0, None)
    mixture = mixture / mixture.sum()
    preference = np.clip(solution.x[:-1], 0.0, None)
    return Gap(
        value=mixture_bound(members=members, row=row, mixture=mixture),
        preference=preference / preference.sum(),
        row=0,
        mixture=mixture,
        rule="programs",
    )


def mixture_bound(*, members: MemberValues, row: ByObjective, mixture: ByMember) -> float:
    """A bound on every user's loss to `row`, proven by a mixture of members.

    For every `w`: `row @ w - max_k members[k] @ w <= (row - mixture @ members) @ w`, which is at
    most the largest entry. No solver has to be trusted.
    """
    return float(np.max(row - mixture @ members))


def least_best_value(members: MemberValues) -> float:
    """What the best member is worth to the user whom it is worth least to."""
    if np.all(members >= 0.0):
        return float(np.min(np.max(members, axis=0))) if len(members) == 1 else 0.0
    zero = np.zeros(members.shape[1])
    return -program_gap(members=members, row=zero).value


def _corners_or_none(members: MemberValues) -> Corners | None:
    if not is_enumerable(n_members=len(members), n_objectives=members.shape[1]):
        return None
    try:
        return corner_preferences(members)
    except NotConvergedError:  # qhull failed its checks: the caller takes linear programs
        return None


def _best_priced(
    *,
    corners: Corners,
    ground: Float[np.ndarray, " corners"],
    rows: RowValues,
    members: MemberValues,
) -> tuple[int, int, float]:
    """Corner, row and loss of the largest loss; rows that cannot win are screened out."""
    first = np.arange(0, len(rows), max(1, len(rows) // SCREEN_ROWS))
    if len(first) == len(rows) or len(corners) < SCREEN_CORNERS:
        return _priced(corners=corners, ground=ground, rows=rows)
    corner, row, value = _priced(corners=corners, ground=ground, rows=rows[first])
    mixture = _mixture_at(corners[corner], members=members, row=rows[first[row]], loss=value)
    open_rows = _screened(rows=rows, members=members, mixture=mixture, value=value)
    open_rows = np.append(open_rows, first[row])  # the best so far, should nothing beat it
    corner, row, value = _priced(corners=corners, ground=ground, rows=rows[open_rows])
    return corner, int(open_rows[row]), value


def _mixture_at(
    corner: ByObjective, *, members: MemberValues, row: ByObjective, loss: float
) -> ByMember:
    """The tied members, mixed so that the row exceeds the mixture alike on all its objectives."""
    worth = members @ corner
    tied = np.flatnonzero(worth >= worth.max() - AGREEMENT * max(1.0, abs(float(worth.max()))))
    shared = corner > 0.0
    system = np.vstack([members[np.ix_(tied, shared)].T, np.ones(len(tied))])
    shares, _ = nnls(system, np.append(row[shared] - loss, 1.0))
    mixture = np.zeros(len(members))
    mixture[tied] = shares / shares.sum() if shares.sum() > 0.0 else 1.0 / len(tied)
    return mixture


def _screened(
    *, rows: RowValues, members: MemberValues, mixture: ByMember, value: float
) -> np.ndarray:
    """Indices of rows that no tried mixture of members proves to lose less than `value`."""
    limits = np.vstack([mixture @ members, members.mean(axis=0), members])
    limits += value - SCREEN_MARGIN * max(1.0, float(np.abs(members).max()))
    open_rows = np.arange(len(rows))
    columns = rows.T
    for limit in limits:
        is_open = columns[0] >= limit[0]
        for column, least in zip(columns[1:], limit[1:], strict=True):
            is_open |= column >= least
        passed = np.flatnonzero(is_open)
        open_rows, columns = open_rows[passed], np.ascontiguousarray(columns[:, passed])
    return open_rows


def _priced(  # in blocks that stay in the cache
    *, corners: Corners, ground: Float[np.ndarray, " corners"], rows: RowValues
) -> tuple[int, int, float]:
    best = (0, 0, -np.inf)
    step = max(64, BLOCK // len(corners))
    for start in range(0, len(rows), step):
        losses = corners @ rows[start : start + step].T - ground[:, None]
        corner, row = divmod(int(np.argmax(losses)), losses.shape[1])
        if losses[corner, row] > best[2]:
            best = (corner, start + row, float(losses[corner, row]))
    return best


def _require_rows(*, members: MemberValues, rows: RowValues) -> None:
    if members.ndim != 2 or rows.ndim != 2 or members.shape[1] != rows.shape[1]:
        raise InvalidInputError(
            f"The members have shape {members.shape} and the rows {rows.shape}; both need one "
            "column per objective."
        )
    if members.size == 0 or rows.size == 0:
        raise InvalidInputError("A gap needs at least one member and one row; the table is empty.")
    if not (np.all(np.isfinite(members)) and np.all(np.isfinite(rows))):
        raise InvalidInputError("A value is not finite; correct it or measure again.")
