"""The baseline for votes: a low-rank table by alternating ridge regressions, and ridge users.

What a practitioner would build first. Rank and ridge are chosen by cross-validation over training
users, so that it is beaten at its best.

Source: Koren, Bell & Volinsky 2009, "Matrix factorization techniques for recommender systems".
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

OFFSET_VOTES = 2.0  # an item's mean is shrunk towards zero as by this many votes of zero
N_ROUNDS = 15


@dataclass(frozen=True, eq=False)
class RidgeTable:
    """Items of the baseline.

    Attributes:
        offset: `[items]`, shrunk mean vote.
        loadings: `[items, tastes]`.
        ridge: Penalty of tastes and of loadings.
    """

    offset: Float[ndarray, " items"]
    loadings: Float[ndarray, "items tastes"]
    ridge: float


def fit_ridge_table(
    votes: Float[ndarray, "users items"],
    *,
    rank: int,
    ridge: float,
    generator: np.random.Generator,
) -> RidgeTable:
    """The baseline's items, from training users; NaN where there is no vote."""
    seen = np.isfinite(votes).astype(np.float64)
    filled = np.where(seen > 0, votes, 0.0)
    offset = filled.sum(axis=0) / (seen.sum(axis=0) + OFFSET_VOTES)
    centred = seen * (filled - offset)
    loadings = 0.1 * generator.standard_normal((votes.shape[1], rank))
    for _ in range(N_ROUNDS):
        tastes = _ridge(seen, centred, loadings, ridge=ridge)
        loadings = _ridge(seen.T, centred.T, tastes, ridge=ridge)
    return RidgeTable(offset, loadings, ridge)


def predict_ridge(
    table: RidgeTable, votes: Float[ndarray, "users items"]
) -> Float[ndarray, "users items"]:
    """Expected votes on all items, from the votes given."""
    seen = np.isfinite(votes).astype(np.float64)
    centred = np.where(seen > 0, votes - table.offset, 0.0)
    tastes = _ridge(seen, centred, table.loadings, ridge=table.ridge)
    return table.offset + tastes @ table.loadings.T


def _ridge(
    seen: Float[ndarray, "rows columns"],
    values: Float[ndarray, "rows columns"],
    loadings: Float[ndarray, "columns tastes"],
    *,
    ridge: float,
) -> Float[ndarray, "rows tastes"]:
    rank = loadings.shape[1]
    outer = (loadings[:, :, None] * loadings[:, None, :]).reshape(-1, rank * rank)
    gram = (seen @ outer).reshape(-1, rank, rank) + ridge * np.eye(rank)
    return np.linalg.solve(gram, (values @ loadings)[..., None])[..., 0]
