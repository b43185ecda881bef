"""Approximations of a mixture with bounds on their total variation: top-k lists and skipping.

A mixture of experts that are known only by their top-k lists, or of which some are left out, is
another distribution than the exact one. Each function gives that distribution and a bound on its
distance; by summing over tokens a bound on every reward in [0, 1] follows (methods C10).

Source:
    mope.md M3 to M5 (ours, with proofs there).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError

MASS_TOLERANCE = 1e-4  # lists may sum to this much more than one, from rounding


@dataclass(frozen=True)
class Listed:
    """The tokens that an expert listed; the rest to one is on tokens that are not listed."""

    probs: Mapping[int, float]  # probability by token id

    def __post_init__(self) -> None:
        """Refuse what is no part of a distribution."""
        if any(not 0.0 <= p <= 1.0 + MASS_TOLERANCE for p in self.probs.values()):
            raise InvalidInputError("A listed probability is negative, above one or not a number.")
        if self.mass > 1.0 + MASS_TOLERANCE:
            raise InvalidInputError(
                f"The listed probabilities sum to {self.mass:.6f}, which is more than one."
            )

    @property
    def mass(self) -> float:
        """Probability of the listed tokens together."""
        return math.fsum(self.probs.values())

    @property
    def missing(self) -> float:
        """Probability of the tokens that are not listed; zero within rounding."""
        return max(0.0, 1.0 - self.mass)


@dataclass(frozen=True)
class Bounded:
    """A distribution over some tokens, and a bound on its distance to the exact one."""

    probs: Mapping[int, float]  # probability by token id, sum one
    bound: float  # at least the total variation to the exact distribution, in [0, 1]


def pool_listed(lists: Sequence[Listed], shares: Sequence[float]) -> Bounded:
    """The linear mixture of the listed parts, renormalised; off by at most `sum_i share_i m_i`.

    Args:
        lists: One per expert.
        shares: One per expert, on the simplex; a list of share zero does not matter.

    Raises:
        InvalidInputError: no listed token has any probability.

    Source:
        mope.md M3.
    """
    pooled: dict[int, float] = {}
    missing = 0.0
    for listed, share in zip(lists, shares, strict=True):
        if share == 0.0:
            continue
        missing += share * listed.missing
        for token, prob in listed.probs.items():
            pooled[token] = pooled.get(token, 0.0) + share * prob
    return Bounded(_normalised(pooled), min(1.0, missing))


def pool_listed_log_linear(lists: Sequence[Listed], coefficients: Sequence[float]) -> Bounded:
    """The log-linear pool over the tokens that every row listed, with its bound.

    With `I` the tokens listed by all, `S = sum_I prod_i p_i^c_i` and
    `H = prod_i (1 - p_i(I))^c_i`, total variation is at most `H / (H + S)`. It is much weaker than
    the bound of linear mixing: ask for longer lists.

    Args:
        lists: One per row, the reference counted as a row; each list sums to at most one.
        coefficients: One per row, on the simplex: no bound exists with a negative one.

    Raises:
        InvalidInputError: a coefficient is negative, or no token is listed by all rows.

    Source:
        mope.md M4.
    """
    if any(c < 0.0 for c in coefficients):
        raise InvalidInputError(
            f"The coefficients {list(coefficients)} hold a negative one, for which top-k lists "
            "give no bound; use whole vocabularies."
        )
    rows = [(row.probs, c) for row, c in zip(lists, coefficients, strict=True) if c > 0.0]
    common = set.intersection(*(set(probs) for probs, _ in rows))
    pooled = {
        token: math.exp(math.fsum(c * _log(probs[token]) for probs, c in rows))
        for token in sorted(common)
    }
    rest = [max(0.0, 1.0 - math.fsum(probs[t] for t in common)) for probs, _ in rows]
    excluded = math.exp(math.fsum(c * _log(r) for r, (_, c) in zip(rest, rows, strict=True)))
    listed = math.fsum(pooled.values())
    return Bounded(_normalised(pooled), excluded / (excluded + listed))


def skip_small(
    shares: Float[ndarray, " experts"], *, threshold: float, floor: int | None = None
) -> tuple[Float[ndarray, " experts"], float]:
    """The shares without those below the threshold, renormalised, and the bound of doing so.

    The largest share always stays, and so does that of the safety floor's expert: leaving others
    out only raises it.

    Args:
        shares: On the simplex.
        threshold: Smaller shares are left out.
        floor: Place of the safety floor's expert, or `None`.

    Returns:
        The new shares, and the total variation that it costs at most: the sum of those left out.

    Source:
        mope.md M5.
    """
    rest = np.where(shares >= threshold, shares, 0.0)
    if not rest.any():
        rest[int(np.argmax(shares))] = shares.max()
    if floor is not None:
        rest[floor] = shares[floor]
    return rest / rest.sum(), float(max(0.0, 1.0 - rest.sum() / shares.sum()))


def _normalised(probs: Mapping[int, float]) -> dict[int, float]:
    total = math.fsum(probs.values())
    if total <= 0.0:
        raise InvalidInputError(
            "No token is listed with a positive probability by those who must list it; ask for "
            "longer lists."
        )
    return {token: prob / total for token, prob in probs.items()}


def _log(value: float) -> float:
    return math.log(value) if value > 0.0 else -math.inf
