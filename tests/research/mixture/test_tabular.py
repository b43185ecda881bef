"""Control on trees against the exact case and brute force."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.mixture.tabular import ControlProblem, share_entropy


@pytest.fixture(scope="module")
def problem(mope_cases: dict[str, Any]) -> ControlProblem:
    case = mope_cases["controller_dp"]
    first = np.log(case["first_token_probs"])[:, None, :]
    second = np.log(case["second_token_probs"])
    experts = [(first[k], second[k]) for k in range(2)]
    return ControlProblem.of(experts, np.array(case["reward"]).reshape(-1))


def test_uniform_static_and_best_controllers_meet_the_exact_case(
    mope_cases: dict[str, Any], problem: ControlProblem
) -> None:
    case = mope_cases["controller_dp"]
    shares, value = problem.optimal()
    static, static_value = problem.best_static()
    assert problem.value(problem.constant([0.5, 0.5])) == pytest.approx(case["value_uniform"])
    assert static_value == pytest.approx(case["best_static"]["value"], abs=1e-10)
    assert static[0] == pytest.approx(case["best_static"]["alpha_expert_0"], abs=1e-4)
    assert value == pytest.approx(case["value_optimal_controller"], abs=1e-10)
    assert problem.value(shares) == pytest.approx(value, abs=1e-12)
    assert shares[0].argmax(axis=1).tolist() == [case["optimal_expert_first"]]
    assert shares[1].argmax(axis=1).tolist() == case["optimal_expert_second"]
    singles = [problem.value(problem.constant(row)) for row in np.eye(2)]
    assert np.allclose(singles, case["values_single_expert"], atol=1e-12)


def test_the_best_controller_is_the_best_of_all_one_hot_ones(problem: ControlProblem) -> None:
    values = [
        problem.value((np.eye(2)[[first]], np.eye(2)[list(second)]))
        for first, *second in product(range(2), repeat=4)
    ]
    assert problem.optimal()[1] == pytest.approx(max(values), abs=1e-12)


def test_no_random_controller_exceeds_the_best(problem: ControlProblem) -> None:
    generator = np.random.default_rng(0)
    best = problem.optimal()[1]
    for _ in range(200):
        shares = tuple(generator.dirichlet(np.full(2, 0.3), size=n) for n in (1, 3))
        assert problem.value(shares) <= best + 1e-12


def test_entropy_of_shares_is_weighed_by_visits(problem: ControlProblem) -> None:
    shares = (np.array([[0.5, 0.5]]), np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]]))
    reached = 0.5 * 0.1 + 0.5 * 0.5  # the third state, by the even mixture of the first tokens
    expected = (np.log(2) + reached * np.log(2)) / 2
    assert share_entropy(shares, problem.policy(shares)) == pytest.approx(expected)


def test_rewards_must_fit_the_tree(problem: ControlProblem) -> None:
    with pytest.raises(InvalidInputError, match="one each"):
        ControlProblem.of([(np.zeros((1, 2)),)], np.zeros(3))
