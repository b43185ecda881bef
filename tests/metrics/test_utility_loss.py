import numpy as np
import pytest

from palate.core.errors import InvalidInputError, InvalidPreferenceError
from palate.metrics.utility_loss import (
    maximum_utility_loss,
    utility_losses,
    worst_share_mean,
)

REFERENCE = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.6]])
USERS = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])


def test_losses_by_hand():
    # with the middle policy alone: 1 - 0.6, 0.6 - 0.6, 1 - 0.6
    losses = utility_losses(portfolio=REFERENCE[2:], reference=REFERENCE, preferences=USERS)
    assert losses == pytest.approx([0.4, 0.0, 0.4])
    assert maximum_utility_loss(
        portfolio=REFERENCE[:2], reference=REFERENCE, preferences=USERS
    ) == pytest.approx(0.1)


def test_a_portfolio_that_beats_the_reference_has_a_negative_loss():
    loss = maximum_utility_loss(
        portfolio=np.array([[2.0, 2.0]]), reference=REFERENCE, preferences=USERS
    )
    assert loss == pytest.approx(-1.0)


def test_a_preference_off_the_simplex_and_empty_tables_are_refused():
    with pytest.raises(InvalidPreferenceError):
        maximum_utility_loss(
            portfolio=REFERENCE, reference=REFERENCE, preferences=np.array([[0.5, 0.6]])
        )
    with pytest.raises(InvalidInputError, match="at least one row"):
        maximum_utility_loss(portfolio=np.zeros((0, 2)), reference=REFERENCE, preferences=USERS)
    with pytest.raises(InvalidInputError, match="objectives"):
        maximum_utility_loss(
            portfolio=np.ones((1, 3)), reference=np.ones((1, 3)), preferences=USERS
        )


def test_the_worst_tenth_of_thirty_users_is_three():
    values = np.arange(30.0)[::-1]
    assert worst_share_mean(values) == 1.0
    assert worst_share_mean(values, share=1e-6) == 0.0
    assert worst_share_mean(values, share=1.0) == 14.5
    with pytest.raises(InvalidInputError, match="share"):
        worst_share_mean(values, share=0.0)
