"""Bradley-Terry on differences of features: which linear score explains the choices.

The probability that `chosen` is preferred is `sigmoid(coefficients @ (x_chosen - x_rejected))`.
Coefficients minimise the negative log-likelihood plus `ridge / 2` times their squared length.

Source: Bradley and Terry 1952, "Rank Analysis of Incomplete Block Designs"; the log-linear form
with covariates as in Agresti 2013, "Categorical Data Analysis", section 11.6.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from palate.core.errors import InvalidInputError, NotConvergedError

SparseRows = Any  # a scipy CSR matrix [texts or pairs, features]; scipy ships no types

MAX_ITERATIONS = 500  # Newton steps; ten are usual
TOLERANCE = 1e-8  # largest entry of the gradient of the mean loss, nats a pair
FOLD_TOLERANCE = 1e-4  # the same, where only a mean loss is compared
FOLDS = 5
RISES = 2  # of the held-out loss in a row, after which smaller ridges are not tried


def fit_bradley_terry(
    differences: SparseRows, *, ridge: float, tolerance: float = TOLERANCE
) -> Float[np.ndarray, " features"]:
    """The ridge estimate of differences `[pairs, features]`, chosen minus rejected; ridge in nats.

    No entry of the gradient of the mean loss is larger than the tolerance at the end.

    Raises:
        InvalidInputError: `ridge` is not positive and finite, or there are fewer than two pairs.
        NotConvergedError: the gradient is not small after `MAX_ITERATIONS` steps.
    """
    if not 0 < ridge < float("inf"):
        raise InvalidInputError(f"The ridge {ridge} is out of range; use a positive number.")
    n_pairs, n_features = differences.shape
    if n_pairs < 2:
        raise InvalidInputError(f"A fit needs at least two pairs; {n_pairs} were given.")
    if n_features == 0 or differences.nnz == 0:
        return np.zeros(n_features)
    model = LogisticRegression(
        C=1 / ridge, fit_intercept=False, solver="newton-cg", tol=tolerance, max_iter=MAX_ITERATIONS
    )
    # every second pair is turned round: the same likelihood, and two classes
    signs = np.where(np.arange(n_pairs) % 2 == 0, 1.0, -1.0)
    mirrored = sp.csr_matrix(sp.diags(signs) @ differences)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # raised below as our own error
        model.fit(mirrored, (signs > 0).astype(np.int64))
    if int(model.n_iter_[0]) >= MAX_ITERATIONS:
        raise NotConvergedError(
            f"The Bradley-Terry fit with ridge {ridge} took more than {MAX_ITERATIONS} steps; "
            "use a larger ridge.",
            last=model.coef_[0],
        )
    return np.asarray(model.coef_[0], dtype=np.float64)


def select_ridge(
    differences: SparseRows, *, groups: Sequence[str], grid: Sequence[float], seed: int
) -> float:
    """The ridge of the grid with the smallest held-out loss, by cross-validation.

    Pairs of one group are on one side of every split. The loss is the mean negative log-likelihood
    of the pairs left out; of equal ones the larger ridge wins. The loss falls and then rises along
    the ridge, so the search goes from the largest down and ends after `RISES` rises. Differences
    are `[pairs, features]`, groups `[pairs]`.

    Raises:
        InvalidInputError: all pairs are of one group.
    """
    n_groups = len(set(groups))
    if n_groups < 2:
        raise InvalidInputError(
            "All pairs are of one group, so nothing can be held out; give a ridge, or more groups."
        )
    folds = GroupKFold(n_splits=min(FOLDS, n_groups), shuffle=True, random_state=seed % 2**32)
    splits = list(folds.split(np.zeros(differences.shape[0]), groups=list(groups)))
    best, best_loss, rises = max(grid), float("inf"), 0
    for ridge in sorted(grid, reverse=True):
        margins = np.zeros(differences.shape[0])
        for train, held_out in splits:
            coefficients = fit_bradley_terry(
                differences[train], ridge=ridge, tolerance=FOLD_TOLERANCE
            )
            margins[held_out] = differences[held_out] @ coefficients
        loss = mean_loss(margins)
        rises = 0 if loss < best_loss else rises + 1
        if loss < best_loss:
            best, best_loss = ridge, loss
        if rises == RISES:
            break
    return best


def block_scale(differences: SparseRows) -> Float[np.ndarray, " features"]:
    """A factor per feature of a block, `[features]`: differences get mean squared length one."""
    mean_square = float(differences.multiply(differences).sum()) / differences.shape[0]
    factor = 1 / np.sqrt(mean_square) if mean_square > 0 else 0.0
    return np.full(differences.shape[1], factor)


def mean_loss(margins: Float[np.ndarray, " pairs"]) -> float:
    """Mean of `-log sigmoid(margin)`, nats a pair; log 2 is no better than a coin."""
    return float(np.mean(np.logaddexp(0.0, -margins)))
