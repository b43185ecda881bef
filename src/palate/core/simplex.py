"""The simplex of preferences (non-negative shares that sum to one): checks, lattices, samples."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidPreferenceError

NEGATIVE_TOLERANCE = 1e-9  # below this an entry is an input error, above it rounding
SUM_TOLERANCE = 1e-6  # sums within this of one are renormalised


def require_simplex(
    values: Sequence[float] | Float[np.ndarray, " objectives"], *, name: str = "preference"
) -> Float[np.ndarray, " objectives"]:
    """`[objectives]`: the point, non-negative, renormalised to sum to one.

    Shares are at least -1e-9, and their sum within 1e-6 of one.

    Raises:
        InvalidPreferenceError: not a vector, not finite, a negative entry, or a sum other than one.
    """
    point = np.asarray(values, dtype=np.float64)
    if point.ndim != 1 or point.size == 0:
        raise InvalidPreferenceError(
            f"The {name} has shape {point.shape}, but needs one share per objective."
        )
    if not np.all(np.isfinite(point)):
        raise InvalidPreferenceError(
            f"The {name} {point.tolist()} holds a value that is not finite; give finite shares."
        )
    if np.any(point < -NEGATIVE_TOLERANCE):
        raise InvalidPreferenceError(
            f"The {name} {point.tolist()} has a negative share; give shares of zero or more."
        )
    total = float(point.sum())
    if abs(total - 1.0) > SUM_TOLERANCE:
        raise InvalidPreferenceError(
            f"The {name} {point.tolist()} sums to {total:.6g}, not 1; divide each share by the sum."
        )
    clipped = np.clip(point, 0.0, None)
    if abs(clipped.sum() - 1.0) <= point.size * np.finfo(np.float64).eps:
        return clipped  # dividing again would move last digits each time a file is read
    return clipped / clipped.sum()


def vector_from_mapping(
    shares: Mapping[str, float], *, objectives: Sequence[str]
) -> Float[np.ndarray, " objectives"]:
    """The simplex point named by `shares`; objectives that are not named get zero.

    Raises:
        InvalidPreferenceError: an objective is unknown, or the shares lie off the simplex.
    """
    unknown = [name for name in shares if name not in objectives]
    if unknown:
        raise InvalidPreferenceError(
            f"The preference names the unknown objective {unknown[0]!r}; "
            f"known are {', '.join(objectives)}."
        )
    return require_simplex([float(shares.get(name, 0.0)) for name in objectives])


def lattice(*, n_objectives: int, denominator: int) -> Float[np.ndarray, "points objectives"]:
    """All points of multiples of `1/denominator`, in descending lexicographic order."""
    bars = combinations(range(denominator + n_objectives - 1), n_objectives - 1)
    rows = [np.diff(np.array([-1, *bar, denominator + n_objectives - 1])) - 1 for bar in bars]
    return np.array(rows, dtype=np.float64)[::-1] / denominator


def sample_simplex(
    *, n_points: int, n_objectives: int, generator: np.random.Generator, concentration: float = 1.0
) -> Float[np.ndarray, "points objectives"]:
    """Points drawn from the symmetric Dirichlet distribution with the given concentration."""
    return generator.dirichlet(np.full(n_objectives, concentration), size=n_points)
