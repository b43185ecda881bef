"""Differences between two ways: paired on the same users and prompts, or unpaired.

Two ways that answer the same prompts share what makes a prompt easy. Their paired difference is
free of it, so it finds small differences that the unpaired one cannot.

Source: Fisher 1935, "The Design of Experiments", section 21 (sign flips); Phipson and Smyth 2010,
"Permutation P-values Should Never Be Zero"; Welch 1947, "The Generalization of Student's Problem".

Deviation: with two kinds of clusters no sign flip keeps both, so the p-value is that of Student's
t with the crossed error of `palate.metrics.clusters` without pooling: pooling suits an interval at
95 %, but errs where Holm's adjustment looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.metrics.clusters import ROUNDING, StandardError, sign_patterns
from palate.metrics.intervals import (
    Interval,
    Labels,
    bootstrap_interval,
    cluster_index,
    mean_error,
    require_confidence,
    require_observations,
)

N_FLIPS = 4999  # random sign flips; the smallest p-value is then 1 / 5000


@dataclass(frozen=True)
class Difference:
    """How much better the first way is, and how surprising that would be without a difference.

    Attributes:
        interval: Of the mean of first minus second.
        p_value: Two-sided; at most 0.05 in at most 5 % of comparisons without a difference.
    """

    interval: Interval
    p_value: float

    def is_significant(self, *, level: float = 0.05) -> bool:
        """Whether the test and the interval both say that there is a difference.

        Asking both keeps a table free of p-values that its intervals contradict, and errs less
        often than either.

        Args:
            level: Largest p-value; pass an adjusted p-value's own level for a whole table.
        """
        is_outside = self.interval.low > 0 or self.interval.high < 0
        return is_outside and self.p_value <= level

    def to_json(self) -> dict[str, float | int]:
        """The difference as plain data."""
        return {**self.interval.to_json(), "p_value": self.p_value}


def paired_difference(
    first: Float[ndarray, " observations"] | Sequence[float],
    second: Float[ndarray, " observations"] | Sequence[float],
    *,
    generator: np.random.Generator,
    clusters: Labels | None = None,
    second_clusters: Labels | None = None,
    confidence: float = 0.95,
) -> Difference:
    """Mean of first minus second, observation by observation.

    The p-value is that of flipping the signs of whole clusters: exact when a cluster's differences
    are as likely as their negatives, which holds when the two ways are exchangeable. With G
    clusters it cannot fall below `2 / 2^G`.

    Args:
        first: `[observations]`, on the same users and prompts as `second`.
        second: `[observations]`.
        generator: Source of the flips; not used with two kinds of clusters.
        clusters: What an observation belongs to, such as its user.
        second_clusters: A second, crossed membership, such as its prompt.
        confidence: Of the interval.

    Raises:
        InvalidInputError: lengths differ, or as in `bootstrap_interval`.

    Source:
        Fisher 1935, section 21.
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
    if second_clusters is None:
        index, _ = cluster_index(clusters, n=len(differences), name="clusters")
        sums = np.bincount(index, weights=differences)
        return Difference(interval, sign_flip_p_value(sums, generator=generator))
    error, _ = mean_error(
        differences,
        clusters=clusters,
        second_clusters=second_clusters,
        with_pooling=False,
    )
    return Difference(interval, error.p_value(interval.estimate))


def unpaired_difference(
    first: Float[ndarray, " observations"] | Sequence[float],
    second: Float[ndarray, " observations"] | Sequence[float],
    *,
    confidence: float = 0.95,
) -> Difference:
    """Mean of first minus mean of second, for samples that share neither users nor prompts.

    Use `paired_difference` whenever both ways answered the same prompts.

    Raises:
        InvalidInputError: fewer than two observations, a value that is not finite, or `confidence`
            outside (0, 1).

    Source:
        Welch 1947.
    """
    require_confidence(confidence)
    samples = [
        require_observations(first, name="first values"),
        require_observations(second, name="second values"),
    ]
    if min(len(sample) for sample in samples) < 2:
        raise InvalidInputError("A sample of one has no spread; give at least two of each.")
    parts = [float(sample.var(ddof=1)) / len(sample) for sample in samples]
    estimate = float(samples[0].mean() - samples[1].mean())
    below = sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, samples, strict=True))
    degrees = sum(parts) ** 2 / below if below > 0 else 1.0
    error = StandardError(float(np.sqrt(sum(parts))), degrees)
    half = error.half_width(confidence)
    n_clusters = min(len(sample) for sample in samples)
    n = sum(len(sample) for sample in samples)
    return Difference(
        Interval(estimate, estimate - half, estimate + half, n, n_clusters),
        error.p_value(estimate),
    )


def sign_flip_p_value(
    sums: Float[ndarray, " clusters"], *, generator: np.random.Generator, n_flips: int = N_FLIPS
) -> float:
    """Share of sign flips of the clusters' sums whose total is at least as far from zero.

    All flips are counted when there are no more than `n_flips` of them; otherwise that many are
    drawn and the observed one is counted among them.

    Source:
        Phipson and Smyth 2010.
    """
    observed = abs(float(sums.sum())) * (1 - ROUNDING)
    is_as_far = [
        np.abs((2.0 * flips - 1.0) @ sums) >= observed
        for flips in sign_patterns(len(sums), generator=generator, n_flips=n_flips)
    ]
    return float(np.concatenate(is_as_far).mean())
