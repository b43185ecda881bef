import numpy as np
import pytest
from scipy import stats

from evaluate.board import FACTS, GAINS, PEOPLE, PREFERENCES, PROMPTS, rows
from palate.core.errors import InvalidInputError
from palate.evaluate.cells import pair_up
from palate.evaluate.scoreboard import difference_of, score_ways
from palate.evaluate.tables import fronts, gain_by_comparisons, gap_by_size, win_matrix


@pytest.fixture(scope="module")
def cells():
    return pair_up(rows(), ways=tuple(GAINS))


@pytest.fixture(scope="module")
def scores(cells):
    return {score.way: score for score in score_ways(cells, FACTS, preferences=PREFERENCES)}


def test_every_way_is_compared_on_the_same_cells(cells):
    assert len(cells.cells) == len(PEOPLE) * len(PROMPTS) * 2
    for way in GAINS:
        assert [(r.person, r.prompt, r.seed, r.copy) for r in cells.rows[way]] == list(cells.cells)


def test_cells_that_one_way_lacks_are_left_out_and_counted():
    some = [row for row in rows() if row.way != "soup" or row.prompt != PROMPTS[0]]
    cells = pair_up(some, ways=tuple(GAINS))
    assert len(cells.cells) == len(PEOPLE) * (len(PROMPTS) - 1) * 2
    assert cells.n_left_out == 2 * len(PEOPLE) * 2  # base and bespoke answered them


def test_a_way_without_rows_is_refused():
    with pytest.raises(InvalidInputError, match="mixture"):
        pair_up(rows(), ways=("base", "mixture"))


def test_utility_and_gain_are_the_planted_ones(scores):
    base = scores["base"].utility.estimate
    assert scores["soup"].utility.estimate == pytest.approx(base + 0.2)
    assert scores["soup"].gain.interval.estimate == pytest.approx(0.2)
    assert scores["soup"].gain.interval.low == pytest.approx(0.2)  # the gain never varies
    assert scores["soup"].p_adjusted <= 0.05


def test_the_share_of_bespoke_is_the_ratio_of_the_gains(scores):
    assert scores["soup"].share.gain.estimate == pytest.approx(0.5)  # 0.2 of 0.4
    assert scores["base"].share.gain.estimate == pytest.approx(0.0)
    assert scores["bespoke"].share.worst == pytest.approx(1.0)


def test_worst_person_and_worst_tenth_by_hand(scores):
    by_person = {
        name: np.mean([r.utility for r in rows(("soup",)) if r.person == name]) for name in PEOPLE
    }
    by_both = [
        np.mean([r.utility for r in rows(("soup",)) if (r.person, r.seed) == (name, seed)])
        for name in PEOPLE
        for seed in (0, 1)
    ]
    assert scores["soup"].worst_person == pytest.approx(min(by_person.values()))
    assert scores["soup"].worst_tenth == pytest.approx(min(by_both))  # a tenth of 8 is one


def test_the_smaller_numbers_are_those_of_the_rows(scores):
    soup = scores["soup"]
    assert soup.passes == 3.0
    assert soup.well_formed == pytest.approx(5 / 6)
    assert soup.kl.estimate == pytest.approx(2.0)
    assert soup.facts == {"bytes_per_person": 24.0}
    assert soup.usage == pytest.approx(2.0)  # two experts, half of the people each
    assert set(soup.by_seed) == {0, 1}
    assert np.mean([*soup.by_seed.values()]) == pytest.approx(soup.utility.estimate)


def test_hypervolume_of_people_at_two_points_by_hand(scores):
    # people with one objective each: means (high, low) for some and (low, high) for others
    means = np.array(
        [
            [
                np.mean([r.rewards[o] for r in rows(("soup",)) if r.person == p])
                for o in ("long", "short")
            ]
            for p in PEOPLE
        ]
    )
    order = means[np.argsort(-means[:, 0])]
    volume, height = 0.0, 0.0
    for x, y in order:
        volume += x * max(0.0, y - height)
        height = max(height, y)
    assert scores["soup"].volume == pytest.approx(volume)


def test_wins_against_the_base_are_counted_in_three_forms(scores):
    rates = scores["soup"].wins.rates
    assert (rates.n_wins, rates.n_ties, rates.n_losses) == (48, 0, 0)
    assert rates.ties_half.estimate == rates.ties_lost.estimate == 1.0
    assert scores["base"].wins is None


def test_the_rate_at_equal_length_knows_that_people_differ():
    # two people always win and two always lose: six prompts that agree are four people who do not
    plain = rows(("base",))
    moved = [
        type(r)(
            **{
                **vars(r),
                "way": "soup",
                "utility": r.utility + (0.2 if r.person in PEOPLE[:2] else -0.2),
            }
        )
        for r in plain
    ]
    cells = pair_up([*plain, *moved], ways=("base", "soup"))
    found = {s.way: s for s in score_ways(cells, (), preferences=PREFERENCES)}["soup"].wins
    assert found.length_controlled.estimate == pytest.approx(0.5, abs=0.01)
    assert found.length_controlled.n_clusters == 4
    assert found.length_controlled.high - found.length_controlled.low > 0.8  # 0.35 by prompts alone


def test_equal_ways_are_ties_and_never_settled():
    both = [*rows(("base",)), *rows(("twin",))]
    cells = pair_up(both, ways=("base", "twin"))
    found = {s.way: s for s in score_ways(cells, (), preferences=PREFERENCES)}
    assert found["twin"].wins.rates.n_ties == 48
    assert found["twin"].p_adjusted == 1.0
    assert not win_matrix(cells).is_settled("base", "twin")


def test_the_matrix_holds_shares_and_differences_of_all_pairs(cells):
    matrix = win_matrix(cells)
    np.testing.assert_allclose(matrix.rates + matrix.rates.T, 1.0)
    assert matrix.rates[matrix.ways.index("soup"), matrix.ways.index("base")] == 1.0
    assert matrix.differences["base", "soup"].interval.estimate == pytest.approx(-0.2)
    assert matrix.is_settled("soup", "base")
    assert matrix.is_settled("base", "soup")
    assert not matrix.is_settled("soup", "soup")


def test_curves_read_the_numbers_of_their_ways():
    ways = ("base", "bespoke", "portfolio-2", "portfolio-10", "soup@5")
    cells = pair_up(rows(ways), ways=ways)
    gap = gap_by_size(cells, ())
    assert [point.x for point in gap] == [2, 10]
    assert gap[0].difference.interval.estimate == pytest.approx(0.4)
    assert gap[0].worst == pytest.approx(0.4)
    learned = gain_by_comparisons(cells)
    assert [point.x for point in learned] == [5]
    assert learned[0].difference.interval.estimate == pytest.approx(0.0)


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
                **{**vars(r), "way": "soup", "utility": r.utility + 0.02 + draws.normal(0, 0.02)}
            )
            for r in plain
        ]
        cells = pair_up([*plain, *better], ways=("base", "soup"))
        n_paired += difference_of(cells, "soup", "base").is_significant()
        n_unpaired += stats.ttest_ind(cells.utility("soup"), cells.utility("base")).pvalue <= 0.05
    assert n_paired >= 23
    assert n_unpaired <= 5


def test_a_null_comparison_of_the_board_is_significant_in_at_most_5_percent_of_400_repeats():
    draws = np.random.default_rng(32)
    people, prompts, seeds = (index.ravel() for index in np.indices((8, 32, 3)))
    from palate.metrics.differences import paired_difference

    n_significant = 0
    for _ in range(400):
        gap = draws.normal(0, 0.3, size=people.size)
        gap += 0.1 * (draws.normal(size=8)[people] + draws.normal(size=32)[prompts])
        found = paired_difference(
            gap, np.zeros(gap.size), generator=draws, clusters=people, second_clusters=prompts
        )
        n_significant += found.is_significant()
    assert n_significant <= 20
    assert seeds.max() == 2
