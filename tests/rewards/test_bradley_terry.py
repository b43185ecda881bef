import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import brentq, minimize

from palate.core.errors import InvalidInputError
from palate.rewards.bradley_terry import fit_bradley_terry, mean_loss, select_ridge


def test_one_feature_solves_the_score_equation() -> None:
    # three pairs with difference 1, one with -1: 3 sigmoid(-t) - sigmoid(t) = ridge t
    found = fit_bradley_terry(sp.csr_matrix([[1.0], [1.0], [1.0], [-1.0]]), ridge=0.5)
    sigmoid = lambda t: 1 / (1 + np.exp(-t))  # noqa: E731
    root = brentq(lambda t: 3 * sigmoid(-t) - sigmoid(t) - 0.5 * t, 0.0, 5.0, xtol=1e-14)
    np.testing.assert_allclose(found, [root], atol=1e-7)


def test_the_fit_is_the_optimum_that_scipy_finds() -> None:
    generator = np.random.default_rng(3)
    differences = generator.normal(size=(60, 4)) @ np.diag([1.0, 0.1, 3.0, 1.0])

    def objective(t: np.ndarray) -> float:
        return float(np.logaddexp(0, -differences @ t).sum() + 0.5 * 0.7 * t @ t)

    expected = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    found = fit_bradley_terry(sp.csr_matrix(differences), ridge=0.7)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_turning_every_pair_round_turns_the_coefficients() -> None:
    differences = sp.csr_matrix(np.random.default_rng(4).normal(size=(31, 3)))
    left = fit_bradley_terry(differences, ridge=1.0)
    right = fit_bradley_terry(-differences, ridge=1.0)
    np.testing.assert_allclose(left, -right, atol=1e-7)


def test_differences_of_nothing_give_zero() -> None:
    assert fit_bradley_terry(sp.csr_matrix((5, 2)), ridge=1.0).tolist() == [0.0, 0.0]
    assert fit_bradley_terry(sp.csr_matrix((5, 0)), ridge=1.0).tolist() == []


def test_separable_pairs_stay_finite() -> None:
    found = fit_bradley_terry(sp.csr_matrix(np.ones((10, 1))), ridge=1e-3)
    assert 5 < found[0] < 20  # 10 sigmoid(-t) = 0.001 t has its root near 6.5


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("inf"), float("nan")])
def test_a_ridge_out_of_range_is_refused(ridge: float) -> None:
    with pytest.raises(InvalidInputError, match="ridge"):
        fit_bradley_terry(sp.csr_matrix(np.ones((3, 1))), ridge=ridge)


def test_one_pair_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least two pairs"):
        fit_bradley_terry(sp.csr_matrix(np.ones((1, 1))), ridge=1.0)


def test_noise_gets_the_largest_ridge_and_signal_the_smallest() -> None:
    generator = np.random.default_rng(5)
    noise = sp.csr_matrix(generator.normal(size=(80, 40)))
    signal = sp.csr_matrix(np.abs(generator.normal(size=(80, 1))))
    groups = [str(i) for i in range(80)]
    grid = (100.0, 1.0, 0.01)
    assert select_ridge(noise, groups=groups, grid=grid, seed=0) == 100.0
    assert select_ridge(signal, groups=groups, grid=grid, seed=0) == 0.01


def test_copies_of_a_pair_do_not_vouch_for_each_other() -> None:
    # every pair is noise and occurs four times: split apart, the copies would reward a small ridge
    noise = np.repeat(np.random.default_rng(6).normal(size=(30, 60)), 4, axis=0)
    grouped = [str(i // 4) for i in range(120)]
    apart = [str(i) for i in range(120)]
    grid = (100.0, 0.1)
    assert select_ridge(sp.csr_matrix(noise), groups=grouped, grid=grid, seed=0) == 100.0
    assert select_ridge(sp.csr_matrix(noise), groups=apart, grid=grid, seed=0) == 0.1


def test_one_group_cannot_be_held_out() -> None:
    with pytest.raises(InvalidInputError, match="one group"):
        select_ridge(sp.csr_matrix(np.ones((3, 1))), groups=["a"] * 3, grid=(1.0,), seed=0)


def test_the_loss_of_a_coin_is_log_two() -> None:
    assert mean_loss(np.zeros(7)) == pytest.approx(np.log(2))
