"""How auto fares, what it took, and whether its promise was kept, by hand."""

from dataclasses import replace

import pytest

from evaluate.board import rows
from palate.evaluate.auto import auto_report
from palate.evaluate.cells import pair_up

GAINS = {
    "base": 0.0,
    "prompt": 0.1,
    "auto": 0.15,
    "prompted-soup": 0.3,
    "rewarded-soup": 0.9,
    "output-soup": 0.9,
}
METHODS = tuple(GAINS)


def decided(row, *, even: float, two: float):
    """An answer of auto that gains so much for its user's shape; others as they are."""
    if row.method != "auto":
        return row
    is_even = row.shape == "even"
    return replace(
        row,
        utility=row.utility - GAINS["auto"] + (even if is_even else two),
        taken="soup" if is_even else "base",
        predicted=(0.2, 0.1, 0.3) if is_even else None,
    )


def board(*, even: float, two: float):
    """Auto takes the soup for users of one shape, the base for the others."""
    some = [decided(row, even=even, two=two) for row in rows(METHODS, gains=GAINS)]
    return pair_up(some, methods=METHODS)


def test_auto_is_compared_with_the_prompt_and_with_the_best_of_equal_passes_by_shape():
    report = auto_report(board(even=0.35, two=0.05))
    found = {row.shape: row for row in report.rows}
    assert [*found] == ["all", "even", "two"]
    assert found["even"].versus_prompt.interval.estimate == pytest.approx(0.25)
    assert found["two"].versus_prompt.interval.estimate == pytest.approx(-0.05)
    # three passes of the output soup are no equal ones, and a rival is not served
    assert {row.best_of_equal_passes for row in report.rows} == {"prompted-soup"}
    assert found["even"].versus_best.interval.estimate == pytest.approx(0.05)
    assert found["two"].versus_best.interval.estimate == pytest.approx(-0.25)


def test_where_auto_does_not_win_a_sentence_says_where_and_what_to_use():
    sentences = auto_report(board(even=0.35, two=0.05)).sentences
    own = [one for one in sentences if "shape 'two'" in one]
    assert len(own) == 2
    assert "against a system prompt: -0.050" in own[0]
    assert "use prompted-soup" in own[1]
    assert not any("shape 'even'" in one for one in sentences)


def test_where_auto_wins_everywhere_nothing_is_said():
    assert auto_report(board(even=0.35, two=0.35)).sentences == ()


def test_what_auto_took_is_counted_by_shape():
    taken = auto_report(board(even=0.35, two=0.05)).taken
    assert taken == {"all": {"soup": 24, "base": 24}, "even": {"soup": 24}, "two": {"base": 24}}


def test_candidates_are_part_of_what_was_taken():
    some = [
        replace(row, taken="prompt", n_candidates=4) if row.method == "auto" else row
        for row in rows(METHODS, gains=GAINS)
    ]
    assert auto_report(pair_up(some, methods=METHODS)).taken["all"] == {"prompt+best-of-4": 48}


def test_the_promise_is_held_against_what_was_measured():
    kept = {one.group: one for one in auto_report(board(even=0.35, two=0.05)).calibration}
    assert set(kept) == {"all", "even", "took soup"}  # nothing was promised to the others
    for one in kept.values():
        assert one.predicted == pytest.approx(0.2)
        assert one.measured == pytest.approx(0.35)
        assert one.difference.estimate == pytest.approx(0.15)


def test_without_auto_there_is_no_such_section():
    assert auto_report(pair_up(rows(), methods=("base", "soup", "bespoke"))) is None
