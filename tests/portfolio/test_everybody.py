from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import NotCertifiedError
from palate.portfolio.everybody import Stakes, best_members, fewest_members
from palate.portfolio.selection import Cost


def front(seed: int, d: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.abs(rng.normal(size=(n, d)))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10_000),
    st.integers(2, 4),
    st.integers(1, 3),
    st.sampled_from(["additive", "multiplicative"]),
)
def test_the_best_members_are_those_that_trying_every_choice_finds(seed, d, size, criterion):
    values = front(seed, d, 6)
    stakes = Stakes(values=values, rows=values, criterion=criterion)
    found = best_members(stakes, size=size)
    by_hand = min(stakes.gap(list(m)).value for m in combinations(range(6), size))
    assert found.gap == pytest.approx(by_hand, abs=1e-8)
    assert found.least_gap == pytest.approx(by_hand, abs=1e-8)
    assert len(found.members) == size


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 4), st.floats(0.0, 0.2), st.floats(0.01, 0.2))
def test_the_fewest_members_are_as_few_as_trying_every_choice_finds(seed, d, epsilon, delta):
    values = front(seed, d, 6)
    stakes = Stakes(values=values, rows=values)
    found = fewest_members(stakes, epsilon=epsilon, delta=delta)
    shrunk = Stakes(values=values, rows=(1 - epsilon) * values)
    assert shrunk.gap(found.members).value <= delta + 1e-8
    for size in range(1, len(found.members)):
        for members in combinations(range(6), size):
            assert shrunk.gap(list(members)).value > delta - 1e-8


def test_no_choice_reaches_a_ceiling_above_the_table():
    values = front(0, 2, 5)
    stakes = Stakes(values=values, rows=values + 0.1)
    with pytest.raises(NotCertifiedError, match="Even all 5 policies"):
        fewest_members(stakes, epsilon=0.0, delta=0.05)
    assert len(fewest_members(stakes, epsilon=0.0, delta=0.5).members) >= 1


def test_members_for_given_users_serve_those_users():
    values = np.array([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]])
    users = np.array([[0.95, 0.05], [0.9, 0.1]])
    stakes = Stakes(values=values, rows=values)
    assert best_members(stakes, size=1, cost=Cost(aim="mean"), users=users).members == (0,)
    assert best_members(stakes, size=1).members == (2,)
    blended = best_members(stakes, size=1, cost=Cost(aim="blend", share=1.0), users=users)
    assert blended.members == (0,)


def test_a_multiplicative_loss_below_zero_is_refused():
    stakes = Stakes(values=-np.ones((1, 2)), rows=np.ones((1, 2)), criterion="multiplicative")
    with pytest.raises(NotCertifiedError, match="offset"):
        stakes.gap([0])


def test_one_objective_needs_one_member():
    stakes = Stakes(values=np.array([[0.2], [0.7]]), rows=np.array([[0.2], [0.7]]))
    assert best_members(stakes, size=1).members == (1,)
    assert fewest_members(stakes, epsilon=0.0, delta=0.01).members == (1,)
