"""A few answer sets for many users: choose K so that nobody is left far behind.

Everybody is served the best of K sets. `select_sets` raises the mean utility of the worst-served
tenth of users together with the mean of all, by exchanging one set at a time until none helps. The
peers: the single set best on average, K-medoids of the users' coefficients, and the greedy choice
by mean utility (within 1 - 1/e of the best mean).

Source: Kaufman & Rousseeuw 1990 (PAM exchanges, medoids); Nemhauser, Wolsey & Fisher 1978 (greedy);
Rockafellar & Uryasev 2000 (mean of the worst tail).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError

TAIL = 0.1  # share of users that the worst-served are
TAIL_SHARE = 0.5  # of the objective; the rest is the mean over all
MAX_EXCHANGES = 100

Objective = Callable[[Float[ndarray, "users sets"]], Float[ndarray, " sets"]]
"""From utilities as served, one column for each choice, to a value for each; higher is better."""


def mean_utility(utilities: Float[ndarray, "users sets"], chosen: list[int]) -> float:
    """Mean over users of the best chosen set's utility."""
    return float(utilities[:, chosen].max(axis=1).mean())


def tail_utility(utilities: Float[ndarray, "users sets"], chosen: list[int]) -> float:
    """The same, over the worst-served tenth of users only (at least one)."""
    best = np.sort(utilities[:, chosen].max(axis=1))
    return float(best[: max(1, int(TAIL * len(best)))].mean())


def select_single(utilities: Float[ndarray, "users sets"]) -> list[int]:
    """The one set that is best on average."""
    return [int(utilities.mean(axis=0).argmax())]


def select_greedy(utilities: Float[ndarray, "users sets"], *, size: int) -> list[int]:
    """Sets added one by one, each raising the mean utility most.

    Raises:
        InvalidInputError: the size is not between 1 and the number of sets.
    """
    _require_size(utilities, size)
    chosen: list[int] = []
    best = np.full(len(utilities), -np.inf)
    for _ in range(size):
        scores = np.maximum(best[:, None], utilities).mean(axis=0)
        scores[chosen] = -np.inf
        chosen.append(int(scores.argmax()))
        best = np.maximum(best, utilities[:, chosen[-1]])
    return chosen


def select_sets(utilities: Float[ndarray, "users sets"], *, size: int) -> list[int]:
    """Sets that serve the worst-off tenth and the mean, by exchanges from the greedy choice.

    Args:
        utilities: `[users, sets]`, higher is better.
        size: How many sets.

    Raises:
        InvalidInputError: the size is not between 1 and the number of sets.
    """
    return _exchange(utilities, select_greedy(utilities, size=size), objective=_mean_and_tail)


def select_medoids(
    coefficients: Float[ndarray, "users features"],
    candidates: Float[ndarray, "sets features"],
    *,
    size: int,
) -> list[int]:
    """Sets whose coefficients are nearest to users', by exchanges on the sum of distances (PAM).

    Raises:
        InvalidInputError: the size is not between 1 and the number of sets.
    """
    distances = np.linalg.norm(coefficients[:, None] - candidates[None], axis=2)
    _require_size(distances, size)
    return _exchange(
        -distances,
        select_greedy(-distances, size=size),
        objective=lambda served: served.mean(axis=0),
    )


def _exchange(
    utilities: Float[ndarray, "users sets"], chosen: list[int], *, objective: Objective
) -> list[int]:
    """The best exchange of one chosen set for another, again and again until none helps."""
    value = float(objective(utilities[:, chosen].max(axis=1, keepdims=True))[0])
    for _ in range(MAX_EXCHANGES):
        best_value, best_chosen = value, chosen
        for out in range(len(chosen)):
            kept = chosen[:out] + chosen[out + 1 :]
            base = utilities[:, kept].max(axis=1, initial=-np.inf)
            scores = objective(np.maximum(base[:, None], utilities))
            candidate = int(scores.argmax())
            if scores[candidate] > best_value + 1e-12:
                best_value, best_chosen = float(scores[candidate]), [*kept, candidate]
        if best_chosen is chosen:
            break
        value, chosen = best_value, best_chosen
    return chosen


def _mean_and_tail(served: Float[ndarray, "users sets"]) -> Float[ndarray, " sets"]:
    """For each column: mean over all and mean over the worst tenth, weighed."""
    count = max(1, int(TAIL * len(served)))
    tail = np.partition(served, count - 1, axis=0)[:count].mean(axis=0)
    return (1.0 - TAIL_SHARE) * served.mean(axis=0) + TAIL_SHARE * tail


def _require_size(utilities: Float[ndarray, "users sets"], size: int) -> None:
    if not 1 <= size <= utilities.shape[1]:
        raise InvalidInputError(
            f"A portfolio of {size} cannot be chosen from {utilities.shape[1]} candidates; "
            f"ask for 1 to {utilities.shape[1]}."
        )
