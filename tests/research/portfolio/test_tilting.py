import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.portfolio.tilting import tilted


def test_tilting_the_policys_own_probabilities_is_exact(small_problem):
    problem = small_problem(4, 3)
    base, w = np.array([0.5, 0.3, 0.2]), np.array([0.25, 0.25, 0.5])
    found = tilted(
        problem.rewards,
        probabilities=problem.optimum(base),
        best_value=float(problem.best_values(base[None, :])[0]),
        step=w - base,
        beta=problem.beta,
    )
    assert found.best_value == pytest.approx(problem.best_values(w[None, :])[0], abs=1e-10)
    reward, _ = problem.reward_and_kl(problem.optimum(w))
    np.testing.assert_allclose(found.reward, reward, rtol=0, atol=1e-10)


def test_tilting_reaches_the_value_of_the_case(tabular_case, case_problem):
    case = tabular_case["tilting"]
    base = np.array(tabular_case["preferences"][case["base"]])
    # prompts count alike in `tilted`, so each prompt is tilted alone and averaged by hand
    parts = [
        tilted(
            case_problem.rewards[[x]],
            probabilities=case_problem.optimum(base)[[x]],
            best_value=0.0,
            step=np.array(case["w"]) - base,
            beta=case_problem.beta,
        ).best_value
        for x in range(3)
    ]
    found = case_problem.best_values(base[None, :])[0] + case_problem.prompt_probabilities @ parts
    assert found == pytest.approx(case["J_star"], abs=1e-10)


def test_no_step_keeps_every_answer_and_a_long_one_few(small_problem):
    problem = small_problem(4, 2)
    draws = np.full((5, 12), 1 / 12)
    shares = [
        tilted(
            problem.rewards,
            probabilities=draws,
            best_value=0.0,
            step=np.array([s, -s]),
            beta=0.02,
        ).effective_share
        * 12
        for s in (0.0, 0.1, 0.5)
    ]
    assert shares[0] == pytest.approx(12.0)
    assert shares[0] > shares[1] > shares[2] >= 1.0


@pytest.mark.parametrize(("beta", "step"), [(0.0, [0.1, -0.1]), (0.1, [0.1, 0.1])])
def test_a_step_off_the_simplex_or_no_price_is_refused(beta, step):
    with pytest.raises(InvalidInputError, match="sums to zero"):
        tilted(
            np.zeros((1, 2, 2)),
            probabilities=np.full((1, 2), 0.5),
            best_value=0.0,
            step=np.array(step),
            beta=beta,
        )
