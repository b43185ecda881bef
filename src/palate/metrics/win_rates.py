"""Win rates: how often the first method's answer is preferred to the second's.

A verdict is 1 (first preferred), 0 (second preferred) or 0.5 (a tie). How ties count changes the
rate, so all three forms are given side by side.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.metrics.intervals import Interval, Labels, rate_interval, require_observations

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
    verdicts: Float[ndarray, " comparisons"] | Sequence[float],
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

    def rate(scores: Float[ndarray, " comparisons"], is_in: ndarray) -> Interval:
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
    first: Float[ndarray, " comparisons"],
    second: Float[ndarray, " comparisons"],
    *,
    tie_margin: float = 0.0,
) -> Float[ndarray, " comparisons"]:
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
    shown_first: Float[ndarray, " comparisons"], shown_second: Float[ndarray, " comparisons"]
) -> Float[ndarray, " comparisons"]:
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
    scores: Float[ndarray, "methods comparisons"], *, tie_margin: float = 0.0
) -> Float[ndarray, "methods methods"]:
    """Share of comparisons that the row's method wins against the column's; ties count one half."""
    return _verdicts(scores[:, None] - scores[None], tie_margin).mean(axis=2)


def _verdicts(gaps: Float[ndarray, "*shape"], tie_margin: float) -> Float[ndarray, "*shape"]:
    return np.where(np.abs(gaps) <= tie_margin, TIE, (gaps > 0).astype(float))
