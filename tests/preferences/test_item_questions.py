import numpy as np

from palate.preferences.factors import Factors
from palate.preferences.item_questions import select_items


def known(loadings: list[list[float]], noise: list[float] | None = None) -> Factors:
    table = np.array(loadings)
    n = len(table)
    variance = np.ones(n) if noise is None else np.array(noise)
    return Factors(
        np.zeros(n),
        table,
        np.zeros((n, table.shape[1] + 1, table.shape[1] + 1)),
        variance,
        np.ones(table.shape[1]),
    )


def test_the_first_question_lowers_the_prediction_error_most() -> None:
    factors = known([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.2]])
    order = select_items(factors, np.ones((1, 4), dtype=bool), n_questions=4)
    # by brute force: expected squared error left on all items after each single answer
    left = [
        sum(
            row @ (np.eye(2) - np.outer(item, item) / (item @ item + 1.0)) @ row
            for row in factors.loadings
        )
        for item in factors.loadings
    ]
    assert order[0, 0] == int(np.argmin(left))
    assert order[0, 1] == 1  # the other taste, before the same one again
    assert sorted(order[0].tolist()) == [0, 1, 2, 3]


def test_only_allowed_items_are_asked_and_gaps_are_marked() -> None:
    factors = known([[2.0], [1.0], [0.5]])
    allowed = np.array([[False, True, True], [False, False, False]])
    order = select_items(factors, allowed, n_questions=3)
    assert order.tolist() == [[1, 2, -1], [-1, -1, -1]]


def test_noisy_items_are_asked_last() -> None:
    factors = known([[1.0], [1.0]], noise=[9.0, 1.0])
    assert select_items(factors, np.ones((1, 2), dtype=bool), n_questions=2).tolist() == [[1, 0]]
