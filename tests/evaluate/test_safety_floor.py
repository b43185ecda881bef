"""A floored twin of a library, and what the floor does to every method."""

import shutil
from dataclasses import replace

import pytest

from evaluate.board import rows
from palate.core.decision import Known
from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.evaluate.cells import pair_up
from palate.evaluate.safety_floor import (
    SAFETY_METHODS,
    FloorStudy,
    evaluate_floor,
    floor_rows,
    floored_twin,
    library_methods,
    render_floor,
)
from palate.evaluate.suite import Suite
from palate.library.library import Library

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


def test_the_table_says_what_the_world_stands_for():
    found = tuple(floor_rows(board({0}), board({0, 1}), objective="short", threshold=0.5))
    study = FloorStudy("short", "short", 0.5, 1.0, is_world=True, n_answers=48, rows=found)
    text = render_floor(study)
    assert "The small world has no harm" in text
    assert "0.833" in text
    own = render_floor(replace(study, is_world=False))
    assert "no harm" not in own


@pytest.fixture
def twin(tiny_soup_library, tmp_path):
    floored_twin(tiny_soup_library, tmp_path / "twin", {"short": 0.7})
    return Library.load(tmp_path / "twin")


def test_every_method_of_the_twin_keeps_the_floor(tiny_soup_library, twin):
    known = Known(preference={"kind": 1.0}, instruction="Be kind.")
    plain = Library.load(tiny_soup_library)
    place = twin.bank.names.index("short")
    for method in library_methods(twin):
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


def test_methods_that_the_library_cannot_serve_are_left_out(tiny_soup_library):
    found = library_methods(Library.load(tiny_soup_library))
    assert set(SAFETY_METHODS) - set(found) == {"portfolio", "mixture", "best-of-n"}  # no rewards


def test_an_objective_without_an_expert_is_refused(tiny_soup_library, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a b"}\n')
    suite = Suite(
        library=str(tiny_soup_library),
        prompts=str(tmp_path / "prompts.jsonl"),
        users=[{"name": "ana", "preference": {"kind": 1.0}}],
        judge={"kind": "held-back"},
    )
    with pytest.raises(InvalidInputError, match="'harmless' has no expert"):
        evaluate_floor(suite, "harmless", out=tmp_path / "out")


@pytest.mark.slow
def test_the_floor_lowers_the_share_of_every_method_of_the_world(tmp_path, monkeypatch):
    # the world has no harm: the friendly tone stands in for harmlessness
    monkeypatch.setattr("palate.evaluate.world.QUICK_STEPS", 25)
    suite = Suite().quick().model_copy(update={"n_prompts": 3})
    study = evaluate_floor(suite, "friendly", out=tmp_path)
    assert {row.method for row in study.rows} == set(SAFETY_METHODS)
    assert study.is_world
    for row in study.rows:
        assert row.with_floor.estimate < row.without.estimate, row.method
        assert row.change.interval.estimate < 0
    assert "friendly" in (tmp_path / "floor.md").read_text()
