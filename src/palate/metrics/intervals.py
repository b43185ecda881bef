"""Intervals: how far a rate or a mean may be from the truth, given what was sampled.

Observations of one person, or on one prompt, resemble each other. An interval that takes them for
independent is too short; resample whole clusters instead, or persons and prompts both.

Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference"; Field
and Welsh 2007, "Bootstrapping Clustered Data"; Hesterberg 2015, "What Teachers Should Know About
the Bootstrap" (expanded percentiles); Owen 2007, "The Pigeonhole Bootstrap"; Cameron,
Gelbach and Miller 2011, "Robust Inference With Multiway Clustering".

Deviations:
1. The percentiles are expanded for the number of clusters, not of observations.
2. With two kinds of clusters the pigeonhole replicates are shrunk about the estimate until their
   standard deviation is the two-way cluster-robust one: on noise without cluster effects the
   pigeonhole bootstrap overstates the variance up to threefold.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import ndtr, ndtri, stdtrit

from palate.core.errors import InvalidInputError

Labels = Sequence[Hashable] | ndarray[Any, Any]
"""One cluster name per observation: a person, a prompt."""

BLOCK_ENTRIES = 4_000_000  # most resampling counts held at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """An estimate and where the truth may be.

    Attributes:
        estimate: The mean of the observations.
        low: Lower end.
        high: Upper end.
        n: Observations.
        n_clusters: Independent clusters the interval rests on; the smaller number when there are
            two kinds; `n` when there are none.
    """

    estimate: float
    low: float
    high: float
    n: int
    n_clusters: int

    def to_json(self) -> dict[str, float | int]:
        """The interval as plain data."""
        return {
            "estimate": self.estimate,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "n_clusters": self.n_clusters,
        }


def wilson_interval(successes: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a rate from independent trials, by inverting the score test.

    It never leaves [0, 1] and has a width even when all trials agree. It does not know of clusters:
    for repeated trials of the same person use `bootstrap_interval`.

    Args:
        successes: Between 0 and `n`; ties may count one half.
        n: Trials; without any the interval is (0, 1).
        confidence: Share of repetitions in which the interval covers the rate.

    Returns:
        Lower and upper end.

    Raises:
        InvalidInputError: `successes` lies outside [0, n], or `confidence` outside (0, 1).

    Source:
        Wilson 1927.

    Example:
        >>> low, high = wilson_interval(8, 10)
        >>> round(low, 4), round(high, 4)
        (0.4902, 0.9433)
    """
    require_confidence(confidence)
    if not 0 <= successes <= n:
        raise InvalidInputError(
            f"{successes} successes in {n} trials is not a count; give 0 <= successes <= n."
        )
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + confidence / 2))
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    # at 0 and n the ends are exactly 0 and 1; rounding must not move them
    low = 0.0 if successes == 0 else float(max(0.0, centre - half))
    high = 1.0 if successes == n else float(min(1.0, centre + half))
    return low, high


def bootstrap_interval(
    values: Float[ndarray, " observations"] | Sequence[float],
    *,
    generator: np.random.Generator,
    clusters: Labels | None = None,
    second_clusters: Labels | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
) -> Interval:
    """Interval of the mean, by resampling whole clusters.

    The percentiles are expanded so that few clusters give wide intervals, as Student's t does. It
    cannot make up for fewer than about ten clusters of skewed observations: it is too short there.

    Args:
        values: `[observations]`, finite.
        generator: Source of the resamples.
        clusters: What an observation belongs to, such as its person; `None`: each stands alone.
        second_clusters: A second, crossed membership, such as its prompt; needs `clusters`.
        confidence: Share of repetitions in which the interval covers the mean.
        n_resamples: Resamples drawn.

    Raises:
        InvalidInputError: no observations, a value that is not finite, labels of another length,
            fewer than two clusters, no resamples, or `confidence` outside (0, 1).

    Source:
        Field and Welsh 2007; Hesterberg 2015; Owen 2007 for two kinds of clusters.
    """
    require_confidence(confidence)
    if n_resamples < 1:
        raise InvalidInputError(f"{n_resamples} resamples show no spread; draw at least one.")
    observations = require_observations(values)
    rows, n_rows = cluster_index(clusters, n=len(observations), name="clusters")
    if second_clusters is None:
        replicates = _one_way(observations, rows, n_rows, generator, n_resamples)
        n_clusters = n_rows
    else:
        if clusters is None:
            raise InvalidInputError("A second kind of clusters needs a first; give `clusters` too.")
        columns, n_columns = cluster_index(
            second_clusters, n=len(observations), name="second_clusters"
        )
        replicates = _two_way(observations, rows, columns, generator, n_resamples)
        n_clusters = min(n_rows, n_columns)
    tail = expanded_tail(confidence=confidence, n_clusters=n_clusters)
    low, high = np.quantile(replicates, [tail, 1 - tail])
    estimate = float(observations.mean())
    # the replicates of constant data may differ from the mean by rounding
    return Interval(
        estimate,
        min(float(low), estimate),
        max(float(high), estimate),
        len(observations),
        n_clusters,
    )


def expanded_tail(*, confidence: float, n_clusters: int) -> float:
    """Probability cut off at either end so that percentiles cover as Student's t does.

    Source:
        Hesterberg 2015: `Phi(-sqrt(n / (n - 1)) t_{n-1})`.
    """
    t = float(stdtrit(n_clusters - 1, 0.5 + confidence / 2))
    return float(ndtr(-np.sqrt(n_clusters / (n_clusters - 1)) * t))


def clustered_variance(
    observations: Float[ndarray, " observations"], index: Int[ndarray, " observations"]
) -> float:
    """Variance of the mean when whole clusters are drawn.

    `G / (G - 1) * sum_g (sum of cluster g's deviations)^2 / n^2` with `G` clusters.

    Source:
        Cameron, Gelbach and Miller 2011, section 2, for a mean.
    """
    sums = np.bincount(index, weights=observations - observations.mean())
    n_clusters = len(sums)
    return float(n_clusters / (n_clusters - 1) * np.sum(sums**2) / len(observations) ** 2)


def two_way_variance(
    observations: Float[ndarray, " observations"],
    rows: Int[ndarray, " observations"],
    columns: Int[ndarray, " observations"],
) -> float:
    """Variance of the mean with crossed clusters, at least that of either kind alone.

    Source:
        Cameron, Gelbach and Miller 2011, section 2: `V_rows + V_columns - V_cells`.
    """
    by_row = clustered_variance(observations, rows)
    by_column = clustered_variance(observations, columns)
    _, cells = np.unique(rows * (columns.max() + 1) + columns, return_inverse=True)
    both = by_row + by_column - clustered_variance(observations, cells)
    return max(both, by_row, by_column)


def require_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1).

    Raises:
        InvalidInputError: it is.
    """
    if not 0 < confidence < 1:
        raise InvalidInputError(
            f"The confidence {confidence} is out of range; use a number between 0 and 1."
        )


def require_observations(
    values: Float[ndarray, " observations"] | Sequence[float], *, name: str = "values"
) -> Float[ndarray, " observations"]:
    """The values as a vector of finite numbers, at least one.

    Raises:
        InvalidInputError: they are not.
    """
    observations = np.asarray(values, dtype=np.float64)
    if observations.ndim != 1 or observations.size == 0:
        raise InvalidInputError(
            f"The {name} have shape {observations.shape}, but a vector of at least one is needed."
        )
    if not np.all(np.isfinite(observations)):
        raise InvalidInputError(f"The {name} hold a number that is not finite; leave it out.")
    return observations


def cluster_index(
    labels: Labels | None, *, n: int, name: str
) -> tuple[Int[ndarray, " observations"], int]:
    """Labels as numbers `0..G-1` in order of appearance, and `G`.

    Raises:
        InvalidInputError: not one label per observation, or fewer than two clusters.
    """
    index = np.arange(n)
    if labels is not None:
        numbers: dict[Hashable, int] = {}
        plain = labels.tolist() if isinstance(labels, ndarray) else labels
        index = np.array([numbers.setdefault(label, len(numbers)) for label in plain], dtype=int)
    if index.shape != (n,):
        raise InvalidInputError(f"There are {len(index)} {name} for {n} values; give one each.")
    n_clusters = int(index.max()) + 1
    if n_clusters < 2:
        raise InvalidInputError(
            f"The {name} hold one cluster, and one says nothing of the spread; give at least two."
        )
    return index, n_clusters


def _one_way(
    observations: Float[ndarray, " observations"],
    index: Int[ndarray, " observations"],
    n_clusters: int,
    generator: np.random.Generator,
    n_resamples: int,
) -> Float[ndarray, " resamples"]:
    sums = np.bincount(index, weights=observations)
    sizes = np.bincount(index)
    means = [
        counts @ sums / (counts @ sizes)
        for counts in _counts_in_blocks(n_clusters, generator, n_resamples)
    ]
    return np.concatenate(means)


def _two_way(
    observations: Float[ndarray, " observations"],
    rows: Int[ndarray, " observations"],
    columns: Int[ndarray, " observations"],
    generator: np.random.Generator,
    n_resamples: int,
) -> Float[ndarray, " resamples"]:
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    estimate = observations.mean()
    deviations = np.zeros(shape)
    sizes = np.zeros(shape)
    np.add.at(deviations, (rows, columns), observations - estimate)
    np.add.at(sizes, (rows, columns), 1.0)
    parts: list[Float[ndarray, " resamples"]] = []
    for counts in _counts_in_blocks(shape[0], generator, n_resamples):
        others = generator.multinomial(shape[1], np.full(shape[1], 1 / shape[1]), size=len(counts))
        drawn = np.sum((counts @ sizes) * others, axis=1)
        totals = np.sum((counts @ deviations) * others, axis=1)
        parts.append(totals[drawn > 0] / drawn[drawn > 0])  # sparse designs may draw no cell at all
    replicates = np.concatenate(parts)
    spread = float(replicates.std())
    if spread == 0.0:
        return estimate + replicates
    smaller = min(shape)
    target = two_way_variance(observations, rows, columns) * (smaller - 1) / smaller
    return estimate + (replicates - replicates.mean()) * np.sqrt(target) / spread


def _counts_in_blocks(
    n_clusters: int, generator: np.random.Generator, n_resamples: int
) -> Iterator[Int[ndarray, "resamples clusters"]]:
    block = max(1, BLOCK_ENTRIES // n_clusters)
    shares = np.full(n_clusters, 1 / n_clusters)
    for start in range(0, n_resamples, block):
        yield generator.multinomial(n_clusters, shares, size=min(block, n_resamples - start))
