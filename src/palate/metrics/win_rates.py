"""Win rates: how often the first method's answer is preferred to the second's.

A verdict is 1 (first preferred), 0 (second preferred) or 0.5 (a tie). How ties count changes the
rate, so all three forms are given side by side.

The rate at equal length, since judges like long answers: a logistic model of the verdict with a
term for the length difference is fitted, and the rate is read off where that difference is zero.

Source: Dubois et al. 2024, "Length-Controlled AlpacaEval", section 3; Liang and Zeger 1986 for the
clustered standard error. Deviations:
1. No term for the difficulty of each prompt: it needs other models' verdicts. Clusters carry it.
2. Both terms have a normal prior of standard deviation 5, so that verdicts which length explains
   wholly still have a finite answer.
3. The standard error is the larger of the clustered one, by one or by two crossed kinds, and the
   model's own, which few or agreeing verdicts would otherwise make too small.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import root
from scipy.special import expit

from palate.core.errors import InvalidInputError, NotConvergedError
from palate.metrics.clusters import StandardError
from palate.metrics.intervals import (
    Interval,
    Labels,
    cluster_indices,
    fewest_clusters,
    mean_error,
    rate_interval,
    require_confidence,
    require_observations,
)

TIE = 0.5


@dataclass(frozen=True)
class WinRates:
    """One comparison, with ties counted in three ways."""

    ties_out: Interval | None  # wins among decided verdicts; `None` when all are ties
    ties_half: Interval  # a tie counts one half
    ties_lost: Interval  # a tie counts as not won
    n_wins: int  # verdicts for the first method
    n_ties: int
    n_losses: int

    def to_json(self) -> dict[str, object]:
        """The rates as plain data."""
        return asdict(self)


def win_rates(
    verdicts: Float[np.ndarray, " comparisons"] | Sequence[float],
    *,
    clusters: Labels | None = None,
    second_clusters: Labels | None = None,
    confidence: float = 0.95,
) -> WinRates:
    """The three win rates of the first method against the second.

    Clusters and confidence are those of `rate_interval`.

    Raises:
        InvalidInputError: a verdict is none of 1, 0.5 and 0, or as in `rate_interval`.
    """
    values = require_observations(verdicts, name="verdicts")
    strange = values[~np.isin(values, (0.0, TIE, 1.0))]
    if strange.size:
        raise InvalidInputError(f"The verdict {strange[0]} is unknown; use 1, 0.5 (a tie) or 0.")

    def rate(scores: Float[np.ndarray, " comparisons"], is_in: np.ndarray) -> Interval:
        first, second = (
            None if labels is None else [x for x, has in zip(labels, is_in, strict=True) if has]
            for labels in (clusters, second_clusters)
        )
        return rate_interval(
            scores[is_in], clusters=first, second_clusters=second, confidence=confidence
        )

    is_any, is_decided, is_won = values >= 0.0, values != TIE, values == 1.0
    return WinRates(
        ties_out=rate(values, is_decided) if is_decided.any() else None,
        ties_half=rate(values, is_any),
        ties_lost=rate(is_won.astype(float), is_any),
        n_wins=int(is_won.sum()),
        n_ties=int(np.sum(~is_decided)),
        n_losses=int(np.sum(values == 0.0)),
    )


def verdicts_from_scores(
    first: Float[np.ndarray, " comparisons"],
    second: Float[np.ndarray, " comparisons"],
    *,
    tie_margin: float = 0.0,
) -> Float[np.ndarray, " comparisons"]:
    """1 where the first score is higher by more than the margin, 0 where lower, 0.5 between.

    Raises:
        InvalidInputError: lengths differ, a score is not finite, or the margin is negative.
    """
    left = require_observations(first, name="first scores")
    right = require_observations(second, name="second scores")
    if left.shape != right.shape or not tie_margin >= 0:
        raise InvalidInputError(
            f"{len(left)} first and {len(right)} second scores with tie margin {tie_margin} cannot "
            "be compared; give one of each per comparison and a margin of zero or more."
        )
    return _verdicts(left - right, tie_margin)


def verdicts_from_both_orders(
    shown_first: Float[np.ndarray, " comparisons"], shown_second: Float[np.ndarray, " comparisons"]
) -> Float[np.ndarray, " comparisons"]:
    """One verdict from two in either order of the answers; a tie where they differ.

    Both numbers are about the same method.

    Raises:
        InvalidInputError: lengths differ.
    """
    if shown_first.shape != shown_second.shape:
        raise InvalidInputError(
            f"There are {len(shown_first)} verdicts in one order and {len(shown_second)} in the "
            "other; ask every comparison in both."
        )
    return np.where(shown_first == shown_second, shown_first, TIE)


def win_rate_matrix(
    scores: Float[np.ndarray, "methods comparisons"], *, tie_margin: float = 0.0
) -> Float[np.ndarray, "methods methods"]:
    """Share of comparisons that the row's method wins against the column's; ties count one half."""
    return _verdicts(scores[:, None] - scores[None], tie_margin).mean(axis=2)


def _verdicts(gaps: Float[np.ndarray, "*shape"], tie_margin: float) -> Float[np.ndarray, "*shape"]:
    return np.where(np.abs(gaps) <= tie_margin, TIE, (gaps > 0).astype(float))


PRIOR_SD = 5.0
TOLERANCE = 1e-10


@dataclass(frozen=True)
class LengthControl:
    """The rate at equal length, beside the effect of length."""

    rate: Interval  # of wins of the first method at equal length, ties counting one half
    length_effect: float  # log odds added when the first answer is much the longer


def length_controlled_rate(
    verdicts: Float[np.ndarray, " comparisons"] | Sequence[float],
    *,
    length_differences: Float[np.ndarray, " comparisons"] | Sequence[float],
    clusters: Labels | None = None,
    second_clusters: Labels | None = None,
    confidence: float = 0.95,
) -> LengthControl:
    """Win rate of the first method at equal length.

    It assumes that length acts on the log odds through `tanh(difference / sd)` alone. Where one
    method is always the longer, it extrapolates and the interval widens. Verdicts are 1, 0.5 or 0;
    length differences are first minus second, in tokens or characters; clusters and confidence are
    those of `rate_interval`.

    Raises:
        InvalidInputError: lengths differ, a verdict is outside [0, 1], fewer than two clusters.
        NotConvergedError: the fit stopped early.
    """
    require_confidence(confidence)
    won = require_observations(verdicts, name="verdicts")
    gaps = require_observations(length_differences, name="length differences")
    if won.shape != gaps.shape or won.min() < 0 or won.max() > 1:
        raise InvalidInputError(
            f"{len(won)} verdicts from {won.min()} to {won.max()} and {len(gaps)} length "
            "differences do not fit; give one of each per comparison, verdicts in [0, 1]."
        )
    spread = float(np.sqrt(np.mean(gaps**2)))
    design = np.column_stack([np.ones(len(won)), np.tanh(gaps / spread) if spread else gaps])
    fitted = _fit_logistic(design, won)
    inverse = np.linalg.inv(_curvature(design, fitted))
    # what each comparison moves the log odds by, times their number: the mean of these errs alike
    moves = len(won) * (won - expit(design @ fitted)) * (design @ inverse[0])
    indices = cluster_indices(clusters, second_clusters, n=len(won))
    clustered = mean_error(moves, indices)
    own_error = float(np.sqrt(inverse[0, 0]))
    error = StandardError(max(clustered.error, own_error), clustered.degrees)
    half = error.half_width(confidence)
    low, rate, high = expit(fitted[0] + np.array([-half, 0.0, half]))
    return LengthControl(
        rate=Interval(float(rate), float(low), float(high), len(won), fewest_clusters(indices)),
        length_effect=float(fitted[1]),
    )


def _fit_logistic(
    design: Float[np.ndarray, "comparisons terms"], won: Float[np.ndarray, " comparisons"]
) -> Float[np.ndarray, " terms"]:
    """Where the gradient of the penalised log-likelihood is zero."""
    solution = root(
        lambda terms: design.T @ (won - expit(design @ terms)) - terms / PRIOR_SD**2,
        np.zeros(design.shape[1]),
        jac=lambda terms: -_curvature(design, terms),
        tol=TOLERANCE,
    )
    if not solution.success:
        raise NotConvergedError(
            f"The length model did not settle ({solution.message}); check the verdicts.",
            last=solution.x,
        )
    return solution.x


def _curvature(
    design: Float[np.ndarray, "comparisons terms"], fitted: Float[np.ndarray, " terms"]
) -> Float[np.ndarray, "terms terms"]:
    share = expit(design @ fitted)
    return (design * (share * (1 - share))[:, None]).T @ design + np.eye(len(fitted)) / PRIOR_SD**2
