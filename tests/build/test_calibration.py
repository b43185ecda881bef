"""What `methods.json` says, on a tiny library whose rewards are rules and therefore known."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate.build import calibration as module
from palate.build.calibration import (
    MEASURED,
    CalibrationSettings,
    calibrate_methods,
    grid_denominator,
)
from palate.build.soup_fit import write_soup
from palate.core.decision import Decision, Known
from palate.core.errors import InvalidInputError
from palate.core.files import hash_value, write_versioned
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed
from palate.library.generate import generate_all
from palate.library.library import Library
from palate.library.method_table import MethodTable, save_method_table
from palate.library.rewards import RULE, RULE_KIND, RULE_VERSION
from tiny import CALIBRATION


@pytest.fixture(scope="module")
def library(tiny_full_library: Path) -> Library:
    return Library.load(tiny_full_library)


def test_the_grid_is_the_finest_lattice_that_is_small_enough() -> None:
    assert grid_denominator(n_objectives=2, max_points=60) == 10
    assert grid_denominator(n_objectives=3, max_points=60) == 9  # 55 points; 10 has 66
    assert grid_denominator(n_objectives=6, max_points=60) == 3  # 56 points
    assert grid_denominator(n_objectives=6, max_points=2) == 1


def test_every_method_that_can_be_served_is_measured(library: Library) -> None:
    table = library.method_table
    assert table is not None
    assert {(row.method, row.n_candidates) for row in table.rows} == set(MEASURED)
    assert table.self_judged == library.manifest.objective_names  # rules judge themselves
    base = table.row("base")
    assert base is not None
    assert not base.gains.any()
    assert not base.standard_errors.any()


def test_a_gain_is_the_difference_to_the_mean_of_the_bases_answers(library: Library) -> None:
    """The prompted base at one point of the grid, drawn again with the documented seeds."""
    table = library.method_table
    assert table is not None
    row = table.row("soup")
    assert row is not None
    place = int(np.flatnonzero(table.points[:, 1] == 1.0)[0])  # everything on `short`
    known = Known(preference={"short": 1.0})
    decisions = [library.decide(prompt, known, method="soup") for prompt in CALIBRATION]
    key = hash_value([module._content(decision) for decision in decisions])
    soup = rewards(library, decisions, seed=table.seed, key=key)
    own = [library.decide(prompt, method="base") for prompt in CALIBRATION]
    key = hash_value([module._content(decision) for decision in own])
    base = np.mean(
        [
            rewards(library, own, seed=derive_seed(table.seed, "base", copy), key=key)
            for copy in range(4)
        ],
        axis=0,
    )
    differences = (soup - base)[:, 1]
    assert row.gains[place] == pytest.approx(differences.mean())
    error = differences.std(ddof=1) / np.sqrt(len(CALIBRATION))
    assert row.standard_errors[place] == pytest.approx(error)


def rewards(library: Library, decisions: list[Decision], *, seed: int, key: str) -> np.ndarray:
    outputs = generate_all(
        library,
        decisions,
        sampling=SamplingParams(max_tokens=6),
        seeds=[derive_seed(seed, "calibration", key, prompt) for prompt in CALIBRATION],
    )
    return library.rewards.score(list(CALIBRATION), [output.text for output in outputs])


@pytest.fixture
def copy(tiny_full_library: Path, tmp_path: Path) -> Library:
    shutil.copytree(tiny_full_library, tmp_path / "library")
    return Library.load(tmp_path / "library")


def calibrate(library: Library) -> MethodTable:
    return calibrate_methods(
        library, CALIBRATION, settings=CalibrationSettings(max_points=6), max_tokens=6
    )


def test_an_interrupted_measuring_goes_on_where_it_stopped(copy: Library) -> None:
    before = copy.method_table
    assert before is not None
    kept = tuple(row for row in before.rows if row.method != "soup")
    save_method_table(copy.files, replace(before, rows=kept))
    after = calibrate(copy.reloaded())
    assert [row.method for row in after.rows[: len(kept)]] == [row.method for row in kept]
    assert after.rows[-1].method == "soup"
    soup = before.row("soup")
    assert soup is not None
    np.testing.assert_allclose(after.rows[-1].gains, soup.gains)
    assert len(calibrate(copy.reloaded()).rows) == len(after.rows)  # nothing was left to do


def test_every_row_is_measured_again_when_a_reward_is_another(copy: Library) -> None:
    before = copy.method_table
    assert before is not None
    rule = {"kind": "length", "unit": "characters", "low": 0, "high": 7, "prefer": "longer"}

    def fill(folder: Path) -> None:
        content = {"objective": "short", "rule": rule}
        write_versioned(folder / RULE, kind=RULE_KIND, version=RULE_VERSION, content=content)

    copy.files.with_reward("short", fill, key="another judge")
    assert copy.reloaded().method_table is None
    after = calibrate(copy.reloaded())
    assert [row.method for row in after.rows] == [row.method for row in before.rows]
    soups = before.row("soup"), after.row("soup")
    assert all(row is not None for row in soups)
    assert not np.array_equal(*(row.rewards[:, 1] for row in soups if row is not None))


def test_a_table_of_another_library_is_not_read(copy: Library) -> None:
    """Experts, strength, floor and sentences are part of what was measured."""
    write_soup(copy, floor={"plain": 2.0})
    assert copy.method_table is None
    write_soup(copy)
    assert copy.reloaded().method_table is not None


def test_the_row_of_another_portfolio_is_not_read(copy: Library) -> None:
    path = copy.files.folder / "portfolio.json"
    path.write_text(path.read_text() + " ")
    table = copy.reloaded().method_table
    assert table is not None
    assert table.row("portfolio") is None
    assert table.row("mixture") is not None


def test_a_preference_without_words_is_not_measured_for_a_system_prompt(copy: Library) -> None:
    path = copy.files.folder / "library.json"
    path.write_text(path.read_text().replace("be plain", ""))
    table = calibrate(copy.reloaded())
    row = table.row("prompt")
    assert row is not None
    is_plain_alone = table.points[:, 2] == 1.0
    np.testing.assert_array_equal(np.isnan(row.gains), is_plain_alone)
    decision = copy.reloaded().decide("a", Known(preference={"plain": 1.0}))
    assert decision.method != "prompt"


def test_too_few_prompts_are_refused(library: Library) -> None:
    with pytest.raises(InvalidInputError, match="3 calibration prompts"):
        calibrate_methods(library, CALIBRATION[:3], settings=CalibrationSettings(), max_tokens=4)
