"""The error of a mean of clustered observations: by cluster, by two crossed kinds, by signs.

Source: MacKinnon, Nielsen and Webb 2023, "Fast and Reliable Jackknife and Bootstrap Methods for
Cluster-Robust Inference" (jackknife variance); Searle, Casella and McCulloch 1992, "Variance
Components", chapter 4 (two crossed kinds); Satterthwaite 1946 (degrees of freedom); Bozivich,
Bancroft and Hartley 1956 (pooling at 25 %); Roodman et al. 2019, "Fast and Wild" (signs of
clusters, inverted); Hartigan 1969, "Using Subsample Values as Typical Values" (the inversion in
closed form).

Deviations:
1. Where cells are missing or of unequal size, the variance of either kind is its jackknife and that
   of the cells comes from the rest of an additive fit; for whole designs these are the mean squares
   of the analysis of variance.
2. A kind that shows less variance than the cells counts as none: variances are not negative.
3. Without pooling the degrees of freedom are those of all three terms, also of those that were cut
   off at zero: a kind without a visible effect is not known to have none.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import fdtrc, stdtr, stdtrit

POOL_ABOVE = 0.25  # p-value of an F test from which a kind is pooled; Bozivich et al. 1956
ROUNDING = 1e-12  # relative: sums that differ by less are equal
MAX_PASSES = 200  # of the additive fit; the first is exact where no cell is missing
BLOCK_ENTRIES = 4_000_000  # most signs held at once: 32 MB as numbers


@dataclass(frozen=True)
class StandardError:
    """How far an estimate strays, and how well that is known."""

    error: float  # standard deviation of the estimate
    degrees: float  # of freedom of Student's t

    def half_width(self, confidence: float) -> float:
        """Of the interval on either side of the estimate."""
        return float(stdtrit(self.degrees, 0.5 + confidence / 2)) * self.error

    def p_value(self, estimate: float) -> float:
        """Two-sided, against a truth of zero."""
        if self.error == 0.0:
            return 1.0 if estimate == 0.0 else 0.0
        return float(2 * stdtr(self.degrees, -abs(estimate) / self.error))


@dataclass(frozen=True)
class Term:
    """A variance of the mean, and the degrees of freedom it is known with."""

    variance: float
    degrees: float

    def is_above(self, noise: "Term", *, p_value: float) -> bool:
        """Whether it is larger than the noise, by an F test with at most that p-value."""
        if self.variance <= noise.variance:
            return False
        ratio = self.variance / noise.variance if noise.variance > 0 else np.inf
        return float(fdtrc(self.degrees, noise.degrees, ratio)) <= p_value


def cluster_error(
    sums: Float[np.ndarray, " clusters"], sizes: Float[np.ndarray, " clusters"]
) -> StandardError:
    """Error of `sum(sums) / sum(sizes)` when whole clusters are drawn, by leaving each out.

    With clusters of one size Student's t is exact for normal means; with few clusters of very
    different size the error is still too short.

    Source: MacKinnon, Nielsen and Webb 2023, CV3 with one degree of freedom less than clusters.
    """
    n_clusters = len(sums)
    total, size = sums.sum(), sizes.sum()
    without = (total - sums) / (size - sizes)
    variance = (n_clusters - 1) / n_clusters * np.sum((without - total / size) ** 2)
    return StandardError(float(np.sqrt(variance)), n_clusters - 1)


def crossed_error(
    observations: Float[np.ndarray, " observations"],
    rows: Int[np.ndarray, " observations"],
    columns: Int[np.ndarray, " observations"],
    *,
    with_pooling: bool,
) -> StandardError:
    """Error of the mean when rows and columns are both samples of more of their kind.

    `V_rows + V_columns - V_cells`, where neither kind has less than `V_cells`. Variances from few
    clusters make nearly every interval too wide where clusters have no effect. Pooling a kind with
    the cells, where an F test finds no difference, keeps 95 % intervals near 95 %, but p-values of
    0.0003, which adjusted tables rest on, would come ten times too often: tests go without.
    """
    by_kind = [cluster_error(*_totals(observations, index)) for index in (rows, columns)]
    _, cells = np.unique(rows * (int(columns.max()) + 1) + columns, return_inverse=True)
    n_cells = int(cells.max()) + 1
    left = n_cells - int(rows.max()) - int(columns.max()) - 1
    if left < 1:  # one kind lies within the other: the wider speaks for both
        return max(by_kind, key=lambda kind: kind.error)
    rest, _ = _totals(_additive_rest(observations, rows, columns), cells)
    noise = Term(float(n_cells / left * np.sum(rest**2) / len(observations) ** 2), left)
    kinds = [Term(kind.error**2, kind.degrees) for kind in by_kind]
    threshold = POOL_ABOVE if with_pooling else 1
    real = [kind for kind in kinds if kind.is_above(noise, p_value=threshold)]
    unsure = [*kinds, noise]
    if with_pooling:
        pooled = [kind for kind in kinds if kind not in real]
        degrees = left + sum(kind.degrees for kind in pooled)
        mean = sum(term.variance * term.degrees for term in [*pooled, noise]) / degrees
        noise = Term(mean, degrees)
        unsure = [*real, Term((1 - len(real)) * mean, degrees)]
    total = sum(kind.variance for kind in real) + (1 - len(real)) * noise.variance
    spread = sum(term.variance**2 / term.degrees for term in unsure)
    return StandardError(float(np.sqrt(total)), max(1.0, total**2 / spread) if spread else left)


def sign_ends(
    sums: Float[np.ndarray, " clusters"],
    sizes: Float[np.ndarray, " clusters"],
    *,
    confidence: float,
    generator: np.random.Generator,
    n_resamples: int,
) -> tuple[float, float] | None:
    """Ends between which flipping the signs of whole clusters refutes no ratio of sum to size.

    A ratio is refuted where it lies outside the ratios of the two halves of the clusters for nearly
    all halvings. Exact where clusters are as likely as their mirror images about the truth,
    whatever their sizes; longer on the side of a long tail.

    Returns:
        The ends; `None` where so few clusters cannot refute anything: under six at 95 %.
    """
    lows: list[Float[np.ndarray, " halvings"]] = []
    highs: list[Float[np.ndarray, " halvings"]] = []
    for flips in sign_patterns(len(sums), generator=generator, n_flips=n_resamples):
        halves = [(half @ sums, half @ sizes) for half in (flips * 1.0, ~flips * 1.0)]
        is_whole = np.minimum(halves[0][1], halves[1][1]) > 0
        ratios = np.stack([a / np.where(is_whole, b, 1.0) for a, b in halves])
        lows.append(np.where(is_whole, ratios.min(axis=0), -np.inf))
        highs.append(np.where(is_whole, ratios.max(axis=0), np.inf))
    low, high = np.sort(np.concatenate(lows)), np.sort(np.concatenate(highs))[::-1]
    place = int((1 - confidence) * len(low) * (1 + ROUNDING))
    if np.isinf(low[place]) or np.isinf(high[place]):
        return None
    return float(low[place]), float(high[place])


def sign_patterns(
    n_clusters: int, *, generator: np.random.Generator, n_flips: int
) -> Iterator[Bool[np.ndarray, "flips clusters"]]:
    """Which clusters keep their sign, in blocks; the first pattern flips none.

    All patterns in which the first cluster keeps its sign (flipping every cluster at once changes
    nothing), if there are no more than `n_flips`; otherwise a sample of that many.
    """
    if 2 ** (n_clusters - 1) <= n_flips:
        numbers = np.arange(2 ** (n_clusters - 1))[:, None]
        yield ~(numbers >> np.arange(n_clusters - 1, -1, -1) & 1).astype(bool)
        return
    yield np.ones((1, n_clusters), dtype=bool)
    block = max(1, BLOCK_ENTRIES // n_clusters)
    for start in range(0, n_flips, block):
        size = (min(block, n_flips - start), n_clusters)
        yield generator.integers(0, 2, size=size, dtype=np.int8).astype(bool)


def _totals(
    observations: Float[np.ndarray, " observations"], index: Int[np.ndarray, " observations"]
) -> tuple[Float[np.ndarray, " clusters"], Float[np.ndarray, " clusters"]]:
    return np.bincount(index, weights=observations), np.bincount(index).astype(float)


def _additive_rest(
    observations: Float[np.ndarray, " observations"],
    rows: Int[np.ndarray, " observations"],
    columns: Int[np.ndarray, " observations"],
) -> Float[np.ndarray, " observations"]:
    """What a sum of a row's and a column's share leaves, by fitting them in turn."""
    rest = observations - observations.mean()
    tolerance = ROUNDING * float(np.abs(rest).max(initial=0.0))
    for _ in range(MAX_PASSES):
        moved = 0.0
        for index in (rows, columns):
            sums, sizes = _totals(rest, index)
            rest = rest - (sums / sizes)[index]
            moved = float(np.abs(sums / sizes).max())
        if moved <= tolerance:
            break
    return rest
