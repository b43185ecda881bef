"""A floored twin of a library, and what the floor does to every method."""

import json
import shutil
from dataclasses import replace

import pytest

from evaluate.board import rows
from palate.core.decision import Known
from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.evaluate.cells import pair_up
from palate.evaluate.evaluation import methods_of
from palate.evaluate.suite import Suite
from palate.library.library import Library
from research.world.safety_floor import (
    FloorStudy,
    evaluate_floor,
    floor_rows,
    floored_twin,
    render_floor,
)

METHODS = ("base", "soup")


def board(lifted):
    """Rows whose reward for `short` is 0.2, or 0.8 for the prompts of these numbers."""
    return pair_up(
        [
            replace(
                row, rewards={"short": 0.8 if int(row.prompt[-1]) in lifted else 0.2, "long": 0.5}
            )
            for row in rows(METHODS)
        ],
        methods=METHODS,
    )


def test_shares_below_the_threshold_and_their_change_by_hand():
    found = floor_rows(board({0}), board({0, 1, 2}), objective="short", threshold=0.5)
    assert [row.method for row in found] == [*METHODS]
    for row in found:
        assert row.without.estimate == pytest.approx(5 / 6)
        assert row.with_floor.estimate == pytest.approx(3 / 6)
        assert row.change.interval.estimate == pytest.approx(-2 / 6)
        assert row.utility.interval.estimate == 0.0
        assert row.without.low < 5 / 6 < row.without.high


def test_no_change_is_no_significant_one():
    found = floor_rows(board({0}), board({0}), objective="short", threshold=0.5)
    assert all(row.change.interval.estimate == 0.0 for row in found)
    assert not any(row.change.is_significant for row in found)


def test_two_libraries_that_answered_other_cells_are_refused():
    fewer = pair_up([row for row in rows(METHODS) if row.user != "ana"], methods=METHODS)
    with pytest.raises(InvalidInputError, match="different prompts or users"):
        floor_rows(board({0}), fewer, objective="short", threshold=0.5)


def test_the_table_says_how_many_answers_were_below_and_with_what_floor():
    rows = tuple(floor_rows(board({0}), board({0, 1}), objective="short", threshold=0.5))
    text = render_floor(FloorStudy("short", "short", 0.5, 1.0, n_answers=48, rows=rows))
    assert "0.833" in text
    assert "a floor of 1 on that objective's expert; 48 answers" in text


@pytest.fixture
def twin(tiny_soup_library, tmp_path):
    floored_twin(tiny_soup_library, tmp_path / "twin", {"short": 0.7})
    return Library.load(tmp_path / "twin")


def test_every_method_of_the_twin_keeps_the_floor(tiny_soup_library, twin):
    known = Known(preference={"kind": 1.0}, instruction="Be kind.")
    plain = Library.load(tiny_soup_library)
    place = twin.bank.names.index("short")
    for method in methods_of(twin):
        decision = twin.decide("a b", known, method=method)
        assert decision.coefficients["short"] >= 0.7
        normal = decision.plan.normal_form()
        shares = normal.pool.coefficients or (1.0,)
        total = sum(s * row.coefficients[place] for s, row in zip(shares, normal.rows, strict=True))
        assert total >= 0.7 - 1e-9
        assert plain.decide("a b", known, method=method).plan != decision.plan


def test_nothing_but_the_floor_differs_in_the_twin(tiny_soup_library, twin):
    plain = Library.load(tiny_soup_library)
    assert plain.floor is None
    assert twin.floor.coefficient == 0.7
    assert twin.strength == plain.strength
    assert twin.basis.settings == plain.basis.settings
    assert twin.manifest == plain.manifest


def test_a_library_without_a_basis_gets_one_with_the_floor(tiny_soup_library, tmp_path):
    shutil.copytree(tiny_soup_library, tmp_path / "bare")
    (tmp_path / "bare/soup.json").unlink()
    floored_twin(tmp_path / "bare", tmp_path / "twin", {"kind": 0.5})
    assert Library.load(tmp_path / "twin").floor.name == "kind"


def test_a_floor_on_nobody_is_refused(tiny_soup_library, tmp_path):
    with pytest.raises(InvalidCoefficientsError, match="colour"):
        floored_twin(tiny_soup_library, tmp_path / "twin", {"colour": 0.5})


def test_a_floor_is_measured_from_a_judge_to_a_table(tiny_full_library, tmp_path):
    users = [{"name": "ana", "preference": {"kind": 1.0}}]
    suite = Suite(users=users, prompts=("a b", "c d"), methods=("base", "soup"), max_tokens=5)
    study = evaluate_floor(tiny_full_library, suite, "plain", out=tmp_path / "out")
    assert [row.method for row in study.rows] == ["base", "soup"]
    assert (study.expert, study.n_answers) == ("plain", 2)
    assert Library.load(tmp_path / "out/floored").floor.name == "plain"
    written = json.loads((tmp_path / "out/floor.json").read_text())
    assert written["rows"][0]["change"]["estimate"] == study.rows[0].change.interval.estimate
    assert (tmp_path / "out/floor.md").is_file()


def test_an_objective_without_an_expert_is_refused(tiny_soup_library, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a b"}\n')
    suite = Suite(
        prompts=str(tmp_path / "prompts.jsonl"),
        users=[{"name": "ana", "preference": {"kind": 1.0}}],
        judge={"kind": "held-back"},
    )
    with pytest.raises(InvalidInputError, match="'harmless' has no expert"):
        evaluate_floor(tiny_soup_library, suite, "harmless", out=tmp_path / "out")
