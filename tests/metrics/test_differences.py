import numpy as np
import pytest
from scipy import stats

from palate.core.errors import InvalidInputError
from palate.metrics.differences import (
    paired_difference,
    sign_flip_p_value,
)
from research.statistics.cells import Cell, count_cell
from research.statistics.draws import Shape


def test_all_flips_of_few_clusters_are_counted(generator):
    # of the 8 sign patterns of 1, 2, 3 only +++ and --- reach 6
    assert sign_flip_p_value(np.array([1.0, 2.0, 3.0]), generator=generator) == 0.25
    # -1, 2, 3 sums to 4: reached by +++, ---, -++, +--
    assert sign_flip_p_value(np.array([-1.0, 2.0, 3.0]), generator=generator) == 0.5


def test_no_difference_at_all_has_a_p_value_of_one(generator):
    same = np.array([0.2, 0.4, 0.9])
    result = paired_difference(same, same, generator=generator)
    assert result.p_value == 1.0
    assert result.interval.estimate == 0.0


def test_drawn_flips_agree_with_scipys_permutation_test(generator):
    values = np.random.default_rng(2).normal(0.4, 1.0, size=30)
    expected = stats.permutation_test(
        (values, np.zeros(30)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=9999,
        rng=np.random.default_rng(3),
        vectorized=True,
    )
    assert sign_flip_p_value(values, generator=generator) == pytest.approx(
        expected.pvalue, abs=0.02
    )


def test_unequal_lengths_are_refused(generator):
    with pytest.raises(InvalidInputError, match="2 first and 3 second"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0], generator=generator)


def test_the_paired_test_finds_a_planted_two_point_difference_that_the_unpaired_does_not():
    draws = np.random.default_rng(21)
    paired, unpaired = 0, 0
    for _ in range(40):
        ease = draws.beta(2, 2, size=300)  # how easy each prompt is: what both methods share
        first = np.clip(ease + 0.02 + draws.normal(0, 0.05, size=300), 0, 1)
        second = np.clip(ease + draws.normal(0, 0.05, size=300), 0, 1)
        paired += paired_difference(first, second, generator=draws).is_significant()
        unpaired += stats.ttest_ind(first, second, equal_var=False).pvalue <= 0.05
    assert paired >= 38
    assert unpaired <= 10


@pytest.mark.parametrize("clustering", ["user", "prompt", "both"])
def test_a_null_comparison_is_called_significant_in_at_most_5_percent_of_400_repeats(clustering):
    draws, signs = np.random.default_rng(22), np.random.default_rng(23)
    users, prompts = (index.ravel() for index in np.indices((20, 15)))
    labels = {
        "user": {"clusters": users},
        "prompt": {"clusters": prompts},
        "both": {"clusters": users, "second_clusters": prompts},
    }[clustering]
    n_significant, n_naive = 0, 0
    for _ in range(400):
        # a user, and a prompt, may lean to either method; on average there is no difference
        gap = draws.normal(0, 0.3, size=300)
        if clustering != "prompt":
            gap += 0.15 * draws.normal(size=20)[users]
        if clustering != "user":
            gap += 0.15 * draws.normal(size=15)[prompts]
        result = paired_difference(gap, np.zeros(300), generator=signs, **labels)
        n_significant += result.is_significant()
        n_naive += stats.ttest_1samp(gap, 0.0).pvalue <= 0.05

    # an exact test errs 20 times on average, 16 to 24 as a rule; its long-run rate is tested below
    assert n_significant <= 20
    assert n_naive > 60


def test_sign_flips_of_clusters_err_in_5_percent_of_3000_repeats():
    draws = np.random.default_rng(23)
    n_significant = sum(
        sign_flip_p_value(draws.normal(size=15), generator=draws, n_flips=499) <= 0.05
        for _ in range(3000)
    )
    assert 0.038 <= n_significant / 3000 <= 0.062  # 0.05 and three standard errors


@pytest.mark.slow
@pytest.mark.parametrize("clustering", ["user", "prompt", "both"])
@pytest.mark.parametrize("lean", [0.0, 0.5], ids=["noise", "effects"])
def test_in_the_long_run_5_percent_of_null_comparisons_are_significant(clustering, lean):
    user, prompt = lean * (clustering != "prompt"), lean * (clustering != "user")
    shape = Shape(8, 16, 3, user=user, prompt=prompt)
    found = count_cell(Cell("clusterings", shape, clustering), n_repeats=4000, seed=1)
    assert found.n_significant is not None
    assert found.n_significant / 4000 <= 0.05 + 3 * 0.0034  # three standard errors


@pytest.mark.slow
@pytest.mark.parametrize("lean", [0.0, 0.5], ids=["noise", "effects"])
def test_a_table_of_27_null_methods_holds_any_claim_in_at_most_5_percent(lean):
    shape = Shape(8, 16, 3, user=lean, prompt=lean)
    found = count_cell(Cell("table", shape, "both"), n_repeats=4000, seed=1)
    assert found.n_significant is not None
    assert found.n_significant / found.n_repeats <= 0.05 + 3 * 0.007
