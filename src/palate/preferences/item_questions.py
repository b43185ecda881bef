"""Which item to ask a user about next, when votes are numbers.

With a normal belief and normal votes the covariance after an answer does not depend on the answer,
so a whole list can be chosen ahead. The next item is the one that most reduces the expected squared
error of the user's votes on all items (A-optimal for prediction).

Source: Chaloner & Verdinelli 1995, "Bayesian experimental design: a review".
"""

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from palate.preferences.factors import Factors


def select_items(
    factors: Factors, allowed: Bool[ndarray, "users items"], *, n_questions: int
) -> Int[ndarray, "users questions"]:
    """Items in the order in which to ask each user, from the prior.

    Args:
        factors: What is known of the items.
        allowed: `[users, items]`, which items can be asked of whom.
        n_questions: How many; -1 fills up where fewer are allowed.

    Returns:
        `[users, questions]`, indices of items or -1.
    """
    n_users, n_items = allowed.shape
    n_tastes = factors.loadings.shape[1]
    loadings = factors.loadings
    own = np.trace(factors.spread[:, :n_tastes, :n_tastes], axis1=1, axis2=2)
    noise = factors.noise * (1.0 + own)  # an uncertain loading acts as noise on its item
    target = loadings.T @ loadings / n_items
    covariances = np.tile(np.eye(n_tastes), (n_users, 1, 1))
    open_items = allowed.copy()
    rows = np.arange(n_users)
    asked = np.full((n_users, n_questions), -1)
    for step in range(n_questions):
        directions = covariances @ loadings.T  # [users, tastes, items]
        variance = (loadings.T * directions).sum(axis=1) + noise
        gain = (directions * (target @ directions)).sum(axis=1) / variance
        best = np.where(open_items, gain, -1.0).argmax(axis=1)
        is_asked = open_items[rows, best]
        asked[is_asked, step] = best[is_asked]
        open_items[rows, best] = False
        moved = directions[rows, :, best] / np.sqrt(variance[rows, best])[:, None]
        covariances -= np.where(is_asked, 1.0, 0.0)[:, None, None] * (
            moved[:, :, None] * moved[:, None, :]
        )
    return asked
