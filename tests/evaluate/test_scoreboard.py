from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from evaluate.board import FACTS, GAINS, PREFERENCES, PROMPTS, USERS, rows
from palate.core.errors import InvalidInputError
from palate.evaluate.cells import pair_up
from palate.evaluate.compare import difference_of, shape_tables
from palate.evaluate.scoreboard import (
    fronts,
    gain_by_comparisons,
    score_methods,
    win_matrix,
    worst_tenth,
)


@pytest.fixture(scope="module")
def cells():
    return pair_up(rows(), methods=tuple(GAINS))


@pytest.fixture(scope="module")
def scores(cells):
    return {score.method: score for score in score_methods(cells, FACTS, preferences=PREFERENCES)}


def test_every_method_is_compared_on_the_same_cells(cells):
    assert len(cells.cells) == len(USERS) * len(PROMPTS) * 2
    for method in GAINS:
        assert [(r.user, r.prompt, r.seed, r.copy) for r in cells.rows[method]] == list(cells.cells)


def test_cells_that_one_method_lacks_are_left_out_and_counted():
    some = [row for row in rows() if row.method != "soup" or row.prompt != PROMPTS[0]]
    cells = pair_up(some, methods=tuple(GAINS))
    assert len(cells.cells) == len(USERS) * (len(PROMPTS) - 1) * 2
    assert cells.n_left_out == 2 * len(USERS) * 2  # base and bespoke answered them


def test_a_method_without_rows_is_refused():
    with pytest.raises(InvalidInputError, match="mixture"):
        pair_up(rows(), methods=("base", "mixture"))


def test_utility_and_gain_are_the_planted_ones(scores):
    base = scores["base"].utility.estimate
    assert scores["soup"].utility.estimate == pytest.approx(base + 0.2)
    assert scores["soup"].gain.interval.estimate == pytest.approx(0.2)
    assert scores["soup"].gain.interval.low == pytest.approx(0.2)  # the gain never varies
    assert scores["soup"].gain.is_significant


def test_worst_user_and_worst_tenth_by_hand(scores):
    by_user = {
        name: np.mean([r.utility for r in rows(("soup",)) if r.user == name]) for name in USERS
    }
    by_both = [
        np.mean([r.utility for r in rows(("soup",)) if (r.user, r.seed) == (name, seed)])
        for name in USERS
        for seed in (0, 1)
    ]
    assert scores["soup"].worst_user == pytest.approx(min(by_user.values()))
    assert scores["soup"].worst_tenth == pytest.approx(min(by_both))  # a tenth of 8 is one


def test_the_smaller_numbers_are_those_of_the_rows(scores):
    soup = scores["soup"]
    assert soup.passes_per_token == 1.0
    assert soup.well_formed == pytest.approx(5 / 6)
    assert soup.kl.estimate == pytest.approx(2.0)
    assert soup.facts == {"bytes_per_user": 24.0}
    assert soup.usage_perplexity == pytest.approx(2.0)  # two experts, half of the users each
    assert set(soup.utility_by_seed) == {0, 1}
    assert np.mean([*soup.utility_by_seed.values()]) == pytest.approx(soup.utility.estimate)


def test_wins_against_the_base_are_counted_in_three_forms(scores):
    rates = scores["soup"].wins.rates
    assert (rates.n_wins, rates.n_ties, rates.n_losses) == (48, 0, 0)
    assert rates.ties_half.estimate == rates.ties_lost.estimate == 1.0
    assert scores["base"].wins is None


def test_the_rate_at_equal_length_knows_that_users_differ():
    # two users always win and two always lose: six prompts that agree are four users who do not
    plain = rows(("base",))
    moved = [
        type(r)(
            **{
                **vars(r),
                "method": "soup",
                "utility": r.utility + (0.2 if r.user in USERS[:2] else -0.2),
            }
        )
        for r in plain
    ]
    cells = pair_up([*plain, *moved], methods=("base", "soup"))
    found = {s.method: s for s in score_methods(cells, (), preferences=PREFERENCES)}["soup"].wins
    assert found.length_controlled.estimate == pytest.approx(0.5, abs=0.01)
    assert found.length_controlled.n_clusters == 4
    assert found.length_controlled.high - found.length_controlled.low > 0.8  # 0.35 by prompts alone


def test_equal_ways_are_ties_and_never_significantly_different():
    both = [*rows(("base",)), *rows(("twin",))]
    cells = pair_up(both, methods=("base", "twin"))
    found = {s.method: s for s in score_methods(cells, (), preferences=PREFERENCES)}
    assert found["twin"].wins.rates.n_ties == 48
    assert found["twin"].gain.p_adjusted == 1.0
    assert not win_matrix(cells).is_significant("base", "twin")


def test_the_matrix_holds_shares_and_differences_of_all_pairs(cells):
    matrix = win_matrix(cells)
    np.testing.assert_allclose(matrix.rates + matrix.rates.T, 1.0)
    assert matrix.rates[matrix.methods.index("soup"), matrix.methods.index("base")] == 1.0
    assert matrix.compared["base", "soup"].interval.estimate == pytest.approx(-0.2)
    assert matrix.is_significant("soup", "base")
    assert matrix.is_significant("base", "soup")
    assert not matrix.is_significant("soup", "soup")


def test_curves_read_the_numbers_of_their_methods():
    methods = ("base", "soup@20", "soup@5", "auto@5", "auto@5+best-of-2")
    cells = pair_up(rows(methods), methods=methods)
    learned = gain_by_comparisons(cells)
    assert [(point.method, point.n_comparisons) for point in learned] == [
        ("auto", 5),
        ("soup", 5),
        ("soup", 20),
    ]
    assert learned[0].difference.interval.estimate == pytest.approx(0.0)


def test_every_shape_has_a_table_against_the_prompt_and_against_the_base():
    gains = {"base": 0.0, "prompt": 0.1, "soup": 0.25}
    cells = pair_up(rows(tuple(gains), gains=gains), methods=tuple(gains))
    tables = {table.shape: table for table in shape_tables(cells)}
    assert [*tables] == ["all", "even", "two"]
    assert [table.n_users for table in tables.values()] == [4, 2, 2]
    for table in tables.values():
        base, prompt, soup = (row.versus for row in table.methods)
        assert soup["base"].interval.estimate == pytest.approx(0.25)
        assert soup["prompt"].interval.estimate == pytest.approx(0.15)
        assert prompt["base"].interval.estimate == pytest.approx(0.1)
        assert "prompt" not in prompt
        assert base == {}


def test_the_p_values_of_a_shape_are_adjusted_for_both_columns_together():
    draws = np.random.default_rng(3)
    noisy = [
        replace(r, utility=r.utility + draws.normal(0, 0.1))
        for r in rows(("base", "prompt", "soup"))
    ]
    cells = pair_up(noisy, methods=("base", "prompt", "soup"))
    table = shape_tables(cells)[0]
    found = sorted(
        (
            (one.difference.p_value, one.p_adjusted)
            for row in table.methods
            for one in row.versus.values()
        ),
    )
    assert len(found) == 3  # prompt - base, soup - base, soup - prompt
    largest = 0.0
    for place, (plain, corrected) in enumerate(found):  # Holm by hand
        largest = max(largest, min(1.0, (3 - place) * plain))
        assert corrected == pytest.approx(largest)


def test_users_that_resemble_each_other_count_once():
    alone = pair_up(rows(), methods=tuple(GAINS))
    paired = [replace(r, cluster="ab" if r.user in USERS[:2] else "cd") for r in rows()]
    together = pair_up(paired, methods=tuple(GAINS))
    assert len(set(alone.clusters["clusters"])) == 4
    assert len(set(together.clusters["clusters"])) == 2


def test_one_user_is_compared_over_prompts_alone():
    own = [row for row in rows() if row.user == "ana"]
    cells = pair_up(own, methods=tuple(GAINS))
    assert cells.clusters == {"clusters": cells.prompts}
    assert difference_of(cells, "soup", "base").interval.n_clusters == len(PROMPTS)


def test_fronts_hold_objectives_that_nobody_wants_together(cells):
    found = fronts(cells, ("soup",), preferences=PREFERENCES)
    assert [set(front.objectives) for front in found] == [{"short", "long"}]
    first, second = found[0].points["soup"]
    assert first[0] > first[1]  # those who want the first objective get more of it
    assert second[1] > second[0]


def test_a_paired_difference_of_the_board_finds_two_points_that_an_unpaired_test_does_not():
    draws = np.random.default_rng(31)
    n_paired, n_unpaired = 0, 0
    for _ in range(25):
        plain = rows(("base",), seed=int(draws.integers(10**6)))
        better = [
            type(r)(
                **{**vars(r), "method": "soup", "utility": r.utility + 0.02 + draws.normal(0, 0.02)}
            )
            for r in plain
        ]
        cells = pair_up([*plain, *better], methods=("base", "soup"))
        n_paired += difference_of(cells, "soup", "base").is_significant()
        n_unpaired += stats.ttest_ind(cells.utility("soup"), cells.utility("base")).pvalue <= 0.05
    assert n_paired >= 23
    assert n_unpaired <= 5


def test_a_null_comparison_of_the_board_is_significant_in_at_most_5_percent_of_400_repeats():
    draws = np.random.default_rng(32)
    users, prompts, seeds = (index.ravel() for index in np.indices((8, 32, 3)))
    from palate.metrics.differences import paired_difference

    n_significant = 0
    for _ in range(400):
        gap = draws.normal(0, 0.3, size=users.size)
        gap += 0.1 * (draws.normal(size=8)[users] + draws.normal(size=32)[prompts])
        found = paired_difference(
            gap, np.zeros(gap.size), generator=draws, clusters=users, second_clusters=prompts
        )
        n_significant += found.is_significant()
    assert n_significant <= 20
    assert seeds.max() == 2


def test_the_worst_tenth_of_thirty_is_three_and_of_a_few_one():
    values = np.arange(30.0)[::-1]
    assert worst_tenth(values) == 1.0
    assert worst_tenth(values[-3:]) == 0.0
