"""Differences between two methods on the same users and prompts, and p-values of a whole table.

Two methods that answer the same prompts share what makes a prompt easy. Their paired difference is
free of it, so it finds small differences that an unpaired one cannot.

Source: Fisher 1935, "The Design of Experiments", section 21 (sign flips); Phipson and Smyth 2010,
"Permutation P-values Should Never Be Zero"; Holm 1979, "A Simple Sequentially Rejective Multiple
Test Procedure".

Deviation: with two kinds of clusters no sign flip keeps both, so the p-value is that of Student's
t with the crossed error of `palate.metrics.clusters` without pooling: pooling suits an interval at
95 %, but errs where Holm's adjustment looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.metrics.clusters import ROUNDING, sign_patterns
from palate.metrics.intervals import (
    Interval,
    Labels,
    bootstrap_interval,
    cluster_indices,
    mean_error,
    require_observations,
)

N_FLIPS = 4999  # random sign flips; the smallest p-value is then 1 / 5000


@dataclass(frozen=True)
class Difference:
    """How much better the first method is, and how surprising that would be if it were not."""

    interval: Interval  # of the mean of first minus second
    p_value: float  # two-sided; at most 0.05 in at most 5 % of comparisons without a difference

    def is_significant(self, *, level: float = 0.05) -> bool:
        """Whether the test (`p_value <= level`) and the interval both show a difference.

        Asking both keeps a table free of p-values that its intervals contradict.
        """
        is_outside = self.interval.low > 0 or self.interval.high < 0
        return is_outside and self.p_value <= level

    def to_json(self) -> dict[str, float | int]:
        """The difference as plain data."""
        return {**self.interval.to_json(), "p_value": self.p_value}


def paired_difference(
    first: Float[np.ndarray, " observations"] | Sequence[float],
    second: Float[np.ndarray, " observations"] | Sequence[float],
    *,
    generator: np.random.Generator,
    clusters: Labels | None = None,
    second_clusters: Labels | None = None,
    confidence: float = 0.95,
) -> Difference:
    """Mean of first minus second, observation by observation.

    The p-value is that of flipping the signs of whole clusters: exact when a cluster's differences
    are as likely as their negatives, which holds when the two methods are exchangeable. With G
    clusters it cannot fall below `2 / 2^G`. Both need the same users and prompts in one order.
    Clusters and confidence are those of `bootstrap_interval`; the generator is the source of the
    flips.

    Raises:
        InvalidInputError: lengths differ, or as in `bootstrap_interval`.
    """
    better = require_observations(first, name="first values")
    worse = require_observations(second, name="second values")
    if better.shape != worse.shape:
        raise InvalidInputError(
            f"There are {len(better)} first and {len(worse)} second values; "
            "a paired difference needs both for the same users and prompts."
        )
    differences = better - worse
    interval = bootstrap_interval(
        differences,
        generator=generator,
        clusters=clusters,
        second_clusters=second_clusters,
        confidence=confidence,
    )
    indices = cluster_indices(clusters, second_clusters, n=len(differences))
    if len(indices) == 1:
        sums = np.bincount(indices[0], weights=differences)
        return Difference(interval, sign_flip_p_value(sums, generator=generator))
    error = mean_error(differences, indices, with_pooling=False)
    return Difference(interval, error.p_value(interval.estimate))


def sign_flip_p_value(
    sums: Float[np.ndarray, " clusters"], *, generator: np.random.Generator, n_flips: int = N_FLIPS
) -> float:
    """Share of sign flips of the clusters' sums whose total is at least as far from zero.

    All flips are counted when there are no more than `n_flips`; otherwise that many are sampled and
    the observed one is counted among them (Phipson and Smyth 2010).
    """
    observed = abs(float(sums.sum())) * (1 - ROUNDING)
    is_as_far = [
        np.abs((2.0 * flips - 1.0) @ sums) >= observed
        for flips in sign_patterns(len(sums), generator=generator, n_flips=n_flips)
    ]
    return float(np.concatenate(is_as_far).mean())


def holm(p_values: Float[np.ndarray, " tests"] | Sequence[float]) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values: rejecting those below `level` errs at all with at most that probability.

    Holds whatever the dependence between the tests.

    Raises:
        InvalidInputError: a p-value is not in [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise InvalidInputError(
            f"The p-values {np.array2string(values, threshold=8)} are not a vector of numbers in "
            "[0, 1]."
        )
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(np.arange(len(values), 0, -1) * values[order])
    return np.minimum(1.0, steps)[np.argsort(order)]
