from dataclasses import replace

import pytest

from palate.core.errors import InvalidInputError
from research.statistics import cells as statistics_study
from research.statistics.cells import (
    Cell,
    Count,
    all_cells,
    check_statistics,
    count_cell,
    share_of,
)
from research.statistics.draws import Shape
from research.statistics.report import render_check, write_check

REPORT = Shape(8, 16, 3, user=0.5, prompt=0.5)


def test_a_share_carries_its_standard_error():
    share = share_of(20, 400)
    assert share["standard_error"] == pytest.approx((0.05 * 0.95 / 400) ** 0.5)
    assert share["low"] < 0.05 < share["high"]


def test_every_statistic_of_the_scoreboard_is_checked_in_cells_of_their_own():
    cells = all_cells()
    assert len(set(cells)) == len(cells)
    assert {cell.what for cell in cells} == set(statistics_study.What.__args__)
    assert {cell.clustering for cell in cells} == {"user", "prompt", "both"}


def test_a_clustering_that_does_not_know_of_the_users_is_found_out():
    known = count_cell(Cell("clusterings", REPORT, "both"), n_repeats=300, seed=0)
    blind = count_cell(Cell("clusterings", REPORT, "prompt"), n_repeats=300, seed=0)
    assert known.n_significant is not None
    assert blind.n_significant is not None
    assert known.n_significant <= 27  # 5 % and three standard errors
    assert blind.n_significant > 27


def test_an_interval_that_is_too_short_is_found_out(monkeypatch):
    cell = Cell("rate", replace(REPORT, user=0.3, prompt=0.3), "both", 0.85)
    honest = count_cell(cell, n_repeats=300, seed=0)
    halved = statistics_study.rate_interval

    def short(*arguments, **labels):
        found = halved(*arguments, **labels)
        half = (found.high - found.low) / 4
        return replace(found, low=found.estimate - half, high=found.estimate + half)

    monkeypatch.setattr(statistics_study, "rate_interval", short)
    cut = count_cell(cell, n_repeats=300, seed=0)
    assert honest.n_covered is not None
    assert cut.n_covered is not None
    assert honest.n_covered > 270
    assert cut.n_covered < 240


def test_a_planted_difference_is_found_by_pairs_only():
    found = count_cell(Cell("planted", Shape(300), "user"), n_repeats=200, seed=0)
    assert found.n_repeats == 20
    assert found.n_significant is not None
    assert found.n_unpaired is not None
    assert found.n_significant >= 18
    assert found.n_unpaired <= 2


@pytest.mark.parametrize("what", ["length", "table"])
def test_the_length_and_the_table_are_counted(what):
    found = count_cell(Cell(what, REPORT, "both"), n_repeats=8, seed=0)
    count = found.n_covered if what == "length" else found.n_significant
    assert count is not None
    assert 0 <= count <= found.n_repeats


def test_looking_a_thousand_times_errs_in_at_most_5_percent():
    cells = [cell for cell in all_cells() if cell.what == "sequence"]
    assert len(cells) == 5
    for cell in cells:
        found = count_cell(cell, n_repeats=400, seed=0)
        assert found.n_significant is not None
        assert found.n_significant <= 20


def test_the_outcome_is_the_same_on_two_processes():
    cells = [Cell("one kind", Shape(4, 0, 3), "user"), Cell("two kinds", REPORT, "both")]
    alone = check_statistics(n_repeats=20, cells=cells)
    assert check_statistics(n_repeats=20, n_workers=2, cells=cells) == alone


def test_nothing_to_repeat_is_refused():
    with pytest.raises(InvalidInputError, match="0 repeats"):
        check_statistics(n_repeats=0)


def test_the_page_marks_what_is_off(tmp_path):
    cell = Cell("clusterings", REPORT, "both")
    found = [
        Count(cell, 1000, n_covered=950, n_significant=50),
        Count(replace(cell, clustering="user"), 1000, n_covered=900, n_significant=100),
        Count(Cell("planted", Shape(300), "user"), 40, n_significant=40, n_unpaired=1),
    ]
    text = render_check(found, command="python -m research.statistics.check")
    assert "| 8 x 16 x 3 | 0.5 | 0.5 | 95.0 ± 0.7; 5.0 ± 0.7 | 90.0 ± 0.9 !; 10.0 ± 0.9 ! |" in text
    assert "paired 40 of 40, unpaired 1 of 40" in text
    write_check(found, tmp_path, command="python -m research.statistics.check")
    assert (tmp_path / "statistics.md").read_text() == text
