"""Intervals: how far a rate or a mean may be from the truth.

Observations of one user, or on one prompt, resemble each other. An interval that takes them for
independent is too short: whole clusters have to be resampled, or the error taken over users and
prompts both. `python -m research.statistics.check` measures how often the intervals cover.

Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference"; Korn
and Graubard 1998, "Confidence Intervals for Proportions With Small Expected Number of Positive
Counts Estimated From Survey Data" (effective trials); `palate.metrics.clusters` for the rest.

Deviation: effective trials enter Wilson's interval, not Clopper and Pearson's.
"""

from collections.abc import Hashable, Sequence
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from palate.core.errors import InvalidInputError
from palate.core.types import Interval
from palate.metrics.clusters import ROUNDING, StandardError, cluster_error, crossed_error, sign_ends

Labels = Sequence[Hashable] | np.ndarray[Any, Any]
"""One cluster name per observation: a user, a prompt."""
Indices = list[Int[np.ndarray, " observations"]]
"""Clusters as numbers from zero in order of appearance, for one or two kinds."""


def wilson_interval(
    successes: float, n: float, *, confidence: float = 0.95, degrees: float = np.inf
) -> tuple[float, float]:
    """Interval of a rate from independent trials, by inverting the score test.

    It never leaves [0, 1] and has a width even when all trials agree. It does not know of clusters:
    for repeated trials of the same user use `rate_interval`. (`scipy.stats.binomtest` has it for
    whole numbers and the normal quantile only.)

    Args:
        successes: Between 0 and `n`; ties may count one half.
        n: Trials; without any the interval is (0, 1).
        confidence: Share of repetitions in which the interval covers the rate.
        degrees: Of freedom with which the number of effective trials is known.

    Raises:
        InvalidInputError: `successes` lies outside [0, n], or `confidence` outside (0, 1).

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
    z = float(stdtrit(degrees, 0.5 + confidence / 2))
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    # at 0 and n the ends are exactly 0 and 1; rounding must not move them
    low = 0.0 if successes == 0 else float(max(0.0, centre - half))
    high = 1.0 if successes == n else float(min(1.0, centre + half))
    return low, high


def rate_interval(
    values: Float[np.ndarray, " observations"] | Sequence[float],
    *,
    clusters: Labels | None = None,
    second_clusters: Labels | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Interval of a rate: Wilson's, for as many independent trials as would err as much.

    Near 0 and 1 it covers where intervals of a mean do not, unless few clusters differ strongly.
    Where all values or all clusters agree, each cluster counts as one trial; without clusters each
    value does, so that ties make it too wide. Values lie in [0, 1]: won, lost, or half. Clusters
    and confidence are those of `bootstrap_interval`.

    Raises:
        InvalidInputError: no observations, a value outside [0, 1], labels of another length, or
            `confidence` outside (0, 1).
    """
    observations = require_observations(values)
    if observations.min() < 0 or observations.max() > 1:
        raise InvalidInputError(
            f"The values reach from {observations.min():.6g} to {observations.max():.6g}; a rate "
            "needs them in [0, 1]."
        )
    rate, n = float(observations.mean()), len(observations)
    indices = cluster_indices(clusters, second_clusters, n=n, least=1)
    n_clusters = fewest_clusters(indices)
    trials, degrees = float(n_clusters), np.inf
    if clusters is not None and n_clusters > 1 and np.ptp(observations) > 0:
        spread = mean_error(observations, indices)
        if spread.error > ROUNDING:
            trials, degrees = rate * (1 - rate) / spread.error**2, spread.degrees
    low, high = wilson_interval(rate * trials, trials, confidence=confidence, degrees=degrees)
    return Interval(rate, min(low, rate), max(high, rate), n, n_clusters)


def bootstrap_interval(
    values: Float[np.ndarray, " observations"] | Sequence[float],
    *,
    generator: np.random.Generator,
    clusters: Labels | None = None,
    second_clusters: Labels | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
) -> Interval:
    """Interval of the mean, by resampling the signs of whole clusters, or from both kinds' errors.

    One kind of clusters: what flipping signs does not refute; under six clusters, which refute
    nothing at 95 %, Student's t. Two kinds: Student's t with the crossed error. Too short with
    fewer than about ten skewed clusters; rates near 0 or 1 are such, and have `rate_interval`.

    Args:
        values: Finite, one per observation.
        generator: Source of the signs; not used with two kinds of clusters or where all signs are
            counted.
        clusters: What an observation belongs to, such as its user; `None`: each stands alone.
        second_clusters: A second, crossed membership, such as its prompt; needs `clusters`.
        confidence: Share of repetitions in which the interval covers the mean.
        n_resamples: Number of sampled signs.

    Raises:
        InvalidInputError: no observations, a value that is not finite, labels of another length,
            fewer than two clusters, too few resamples, or `confidence` outside (0, 1).
    """
    require_confidence(confidence)
    if n_resamples * (1 - confidence) < 1:
        raise InvalidInputError(
            f"{n_resamples} resamples show nothing that happens with probability "
            f"{1 - confidence:.3g}; draw at least {ceil(1 / (1 - confidence))}."
        )
    observations = require_observations(values)
    n = len(observations)
    indices = cluster_indices(clusters, second_clusters, n=n)
    estimate = float(observations.mean())
    half = mean_error(observations, indices).half_width(confidence)
    ends = (estimate - half, estimate + half)
    if second_clusters is None:
        signed = sign_ends(
            np.bincount(indices[0], weights=observations),
            np.bincount(indices[0]).astype(float),
            confidence=confidence,
            generator=generator,
            n_resamples=n_resamples,
        )
        ends = signed or ends
    low, high = min(ends[0], estimate), max(ends[1], estimate)  # may differ by rounding
    return Interval(estimate, low, high, n, fewest_clusters(indices))


def mean_error(
    observations: Float[np.ndarray, " observations"], indices: Indices, *, with_pooling: bool = True
) -> StandardError:
    """Standard error of the mean over one kind of clusters or two crossed ones."""
    if len(indices) == 2:
        return crossed_error(observations, *indices, with_pooling=with_pooling)
    sums = np.bincount(indices[0], weights=observations)
    return cluster_error(sums, np.bincount(indices[0]).astype(float))


def cluster_indices(
    clusters: Labels | None, second_clusters: Labels | None, *, n: int, least: int = 2
) -> Indices:
    """The clusters of `n` observations as numbers; without labels each stands alone.

    Raises:
        InvalidInputError: not one label per observation, fewer than `least` clusters, or a second
            kind without a first.
    """
    if clusters is None and second_clusters is not None:
        raise InvalidInputError("A second kind of clusters needs a first; give `clusters` too.")
    indices = [np.arange(n) if clusters is None else _numbered(clusters, n=n, name="clusters")]
    if second_clusters is not None:
        indices.append(_numbered(second_clusters, n=n, name="second_clusters"))
    if fewest_clusters(indices) < least:
        raise InvalidInputError(
            "The labels hold one cluster, and one says nothing of the spread; give at least two."
        )
    return indices


def fewest_clusters(indices: Indices) -> int:
    """The number of clusters of the kind that has the fewest."""
    return min(int(index.max()) + 1 for index in indices)


def require_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1) with InvalidInputError."""
    if not 0 < confidence < 1:
        raise InvalidInputError(
            f"The confidence {confidence} is out of range; use a number between 0 and 1."
        )


def require_observations(
    values: Float[np.ndarray, " observations"] | Sequence[float], *, name: str = "values"
) -> Float[np.ndarray, " observations"]:
    """The values as a vector of finite numbers, at least one; otherwise InvalidInputError."""
    observations = np.asarray(values, dtype=np.float64)
    if observations.ndim != 1 or observations.size == 0:
        raise InvalidInputError(
            f"The {name} have shape {observations.shape}, but a vector of at least one is needed."
        )
    if not np.all(np.isfinite(observations)):
        raise InvalidInputError(f"The {name} hold a number that is not finite; leave it out.")
    return observations


def _numbered(labels: Labels, *, n: int, name: str) -> Int[np.ndarray, " observations"]:
    numbers: dict[Hashable, int] = {}
    plain = labels.tolist() if isinstance(labels, np.ndarray) else labels
    index = np.array([numbers.setdefault(label, len(numbers)) for label in plain], dtype=int)
    if index.shape != (n,):
        raise InvalidInputError(f"There are {len(index)} {name} for {n} values; give one each.")
    return index
