"""Yardstick C: the published means, and that REBEL with a table nearly reaches the best."""

import numpy as np
import pytest

from research.mixture.tree_controllers import (
    RebelSettings,
    Yardstick,
    fit_table,
    two_halves,
    yardstick,
)
from research.soup.trees import answer_log_probs


@pytest.fixture(scope="module")
def yardsticks() -> list[Yardstick]:
    return [yardstick(seed) for seed in range(5)]


def test_the_exact_columns_are_reproduced(yardsticks: list[Yardstick]) -> None:
    rows = []
    for one in yardsticks:
        problem = one.problem
        reference = np.exp(answer_log_probs(one.reference)) @ problem.rewards
        uniform = problem.value(problem.constant([1 / 3] * 3))
        single = max(problem.value(problem.constant(row)) for row in np.eye(3))
        rows.append([reference, uniform, single, problem.best_static()[1], problem.optimal()[1]])
    assert np.allclose(np.mean(rows, axis=0), [0.495, 0.636, 0.677, 0.681, 0.753], atol=0.002)


def test_a_short_run_of_rebel_beats_every_static_controller(yardsticks: list[Yardstick]) -> None:
    problem = yardsticks[1].problem
    shares = fit_table(problem, seed=1, settings=RebelSettings(n_updates=20))
    uniform = problem.value(problem.constant([1 / 3] * 3))
    gain = problem.value(shares) - uniform
    assert problem.value(shares) > problem.best_static()[1]
    assert gain > 0.85 * (problem.optimal()[1] - uniform)


def test_the_same_seed_gives_the_same_table(yardsticks: list[Yardstick]) -> None:
    short = RebelSettings(n_updates=2, n_pairs=16)
    first, again, other = (
        fit_table(yardsticks[0].problem, seed=seed, settings=short) for seed in (3, 3, 4)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_where_each_expert_is_right_in_one_half_every_constant_vector_is_worth_the_same() -> None:
    problem = two_halves()
    generator = np.random.default_rng(0)
    for shares in generator.dirichlet([1.0, 1.0], size=50):
        assert problem.value(problem.constant(shares)) == pytest.approx(0.45, abs=1e-12)
    assert problem.best_static()[1] == pytest.approx(0.45, abs=1e-12)
    shares, value = problem.optimal()
    assert value == pytest.approx(0.8, abs=1e-12)
    assert [table.argmax(axis=1).tolist() for table in shares[:2]] == [[0], [0] * 3]
    assert set(np.concatenate(shares[2:]).argmax(axis=1).tolist()) == {1}


def test_rebel_learns_to_change_hands_in_the_middle() -> None:
    problem = two_halves()
    learned = fit_table(problem, seed=0, settings=RebelSettings(n_updates=40))
    assert problem.value(learned) > 0.7  # every constant vector has 0.45
