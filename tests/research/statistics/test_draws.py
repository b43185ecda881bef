import numpy as np
import pytest

from research.statistics.draws import Shape, design_of, differences_of, verdicts_of


@pytest.mark.parametrize("outcome", ["normal", "skewed", "ties"])
@pytest.mark.parametrize("n_prompts", [0, 5])
def test_differences_have_a_mean_of_zero_whatever_leans(outcome, n_prompts):
    shape = Shape(6, n_prompts, 2, is_equal=False, outcome=outcome, user=0.5, prompt=0.5)
    design, draws = design_of(shape), np.random.default_rng(1)
    means = [differences_of(shape, design, draws).mean() for _ in range(4000)]
    assert abs(np.mean(means)) < 4 * np.std(means) / np.sqrt(4000)


def test_verdicts_are_won_at_the_given_rate():
    shape = Shape(6, 5, 2, user=1.0, prompt=0.5)
    design, draws = design_of(shape), np.random.default_rng(2)
    rates = [verdicts_of(shape, design, draws, rate=0.85).mean() for _ in range(4000)]
    assert np.mean(rates) == pytest.approx(0.85, abs=4 * np.std(rates) / np.sqrt(4000))


def test_users_who_lean_resemble_themselves():
    shape = Shape(400, 0, 5, user=2.0)
    design = design_of(shape)
    values = differences_of(shape, design, np.random.default_rng(3)).reshape(400, 5)
    # of the variance 4 + 1 four fifths are a user's own
    assert np.corrcoef(values[:, 0], values[:, 1])[0, 1] == pytest.approx(0.8, abs=0.06)


def test_unequal_designs_ask_some_users_more_and_every_prompt_of_somebody():
    alone = np.bincount(design_of(Shape(8, 0, 12, is_equal=False)).users)
    assert alone.max() > 8 * alone.min()
    assert alone.mean() == pytest.approx(12, abs=0.5)
    crossed = design_of(Shape(8, 16, 1, is_equal=False))
    sizes = np.bincount(crossed.users)
    assert sizes.tolist() == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (5, 16)  # the least asked user has 0.3 of 16, rounded up
    assert set(crossed.prompts.tolist()) == set(range(16))
