import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.portfolio.baselines import PoolOracle, inward, random_anchors, uniform_anchors
from research.portfolio.exact import exact_payoffs
from research.portfolio.tabular import TabularOracle


def test_uniform_anchors_are_those_of_the_yardstick():
    np.testing.assert_allclose(
        uniform_anchors(n_objectives=2, size=5)[:, 0], [1.0, 0.75, 0.5, 0.25, 0.0]
    )
    seven = uniform_anchors(n_objectives=3, size=7)
    expected = {(1, 0, 0), (0, 1, 0), (0, 0, 1), (3, 3, 0), (3, 0, 3), (0, 3, 3), (2, 2, 2)}
    assert {tuple(np.round(a * (1 if a.max() == 1 else 6)).astype(int)) for a in seven} == expected
    assert uniform_anchors(n_objectives=3, size=1).tolist() == [[1 / 3] * 3]


@pytest.mark.parametrize(("d", "size"), [(3, 12), (4, 15), (5, 3)])
def test_uniform_anchors_are_different_and_on_the_simplex(d, size):
    found = uniform_anchors(n_objectives=d, size=size)
    assert len(np.unique(np.round(found, 9), axis=0)) == size
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


def test_no_anchor_and_more_than_the_lattice_has_are_refused():
    with pytest.raises(InvalidInputError, match="too few"):
        uniform_anchors(n_objectives=3, size=0)
    with pytest.raises(InvalidInputError, match="more than"):
        uniform_anchors(n_objectives=3, size=100)


def test_random_anchors_depend_on_the_generator_alone():
    first, second = (
        random_anchors(n_objectives=3, size=4, generator=np.random.default_rng(5)) for _ in range(2)
    )
    assert np.array_equal(first, second)


def test_unit_vectors_move_inward_and_others_stay():
    found = inward(np.array([[1.0, 0.0], [0.5, 0.5]]))
    np.testing.assert_allclose(found, [[0.95, 0.05], [0.5, 0.5]])


def test_a_pool_answers_with_the_nearest_policy(case_problem):
    oracle = TabularOracle(case_problem)
    names = [oracle.policy(w) for w in np.eye(3)]
    pool = PoolOracle(oracle.payoffs(names))
    assert pool.policy(np.array([0.2, 0.5, 0.3])) == names[1]
    assert pool.payoffs([names[2]]).table.policies == (names[2],)
    assert pool.objectives == oracle.objectives


def test_a_pool_of_unknown_preferences_is_refused(case_problem):
    from dataclasses import replace

    oracle = TabularOracle(case_problem)
    table = oracle.payoffs([oracle.policy(w) for w in np.eye(3)]).table
    with pytest.raises(InvalidInputError, match="preference that each policy"):
        PoolOracle(exact_payoffs(replace(table, preferences=np.full((3, 3), np.nan))))
