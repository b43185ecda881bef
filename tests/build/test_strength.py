"""The strength of a library: chosen by what the base itself finds odd, without any reward."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate.build import strength as module
from palate.build.strength import Wholeness, measure_strength
from palate.core.protocols import SamplingParams
from palate.library.library import Library
from palate.soup.basis_file import load_basis
from tiny import CALIBRATION


@pytest.fixture
def library(tiny_full_library: Path, tmp_path: Path) -> Library:
    copy = tmp_path / "library"
    shutil.copytree(tiny_full_library, copy)
    return Library.load(copy)


def test_answers_are_as_whole_as_the_bases_within_a_twentieth() -> None:
    base = Wholeness(finished=1.0, odd=0.01, repeated=0.0, unbroken=0.9)
    near = Wholeness(finished=0.96, odd=0.05, repeated=0.04, unbroken=0.86)
    assert near.is_as_whole_as(base)
    for worse in ({"finished": 0.94}, {"odd": 0.07}, {"repeated": 0.06}, {"unbroken": 0.84}):
        assert not replace(base, **worse).is_as_whole_as(base)
    alone = {"finished": 0.2, "odd": 0.1, "repeated": 0.09, "unbroken": 0.81}
    assert replace(base, **alone).is_as_whole_as(base, is_alone=True)
    for worse in ({"odd": 0.12}, {"repeated": 0.11}, {"unbroken": 0.79}):
        assert not replace(base, **worse).is_as_whole_as(base, is_alone=True)


def test_one_objective_that_breaks_its_text_alone_limits_the_strength(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._Work.wholeness

    def wholeness(self, outputs, *, threshold):
        found = replace(real(self, outputs, threshold=threshold), unbroken=1.0)
        shares = [one.decision.coefficients for one in outputs]
        is_broken = all(
            row.get("kind", 0.0) >= 1.5 and sum(map(bool, row.values())) == 1 for row in shares
        )
        return replace(found, odd=0.0, finished=1.0, unbroken=0.5 if is_broken else 1.0)

    monkeypatch.setattr(module._Work, "wholeness", wholeness)
    rows = measure_strength(library, CALIBRATION, sampling=SamplingParams(max_tokens=2))
    assert list(rows) == [0.5, 1.0, 1.5]
    assert library.strength == 1.0
    assert rows[1.5]["kind"].unbroken == 0.5
    assert rows[1.5][module.BLENDS].unbroken == 1.0


def test_preferences_are_of_one_two_or_three_objectives_in_equal_parts() -> None:
    found = module._preferences(4, seed=0)
    assert len(found) == 14  # 4 + 6 + 4
    for row in found:
        assert len(set(row[row > 0].round(9))) == 1
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


def test_the_measured_strength_is_written_and_used_at_once(library: Library) -> None:
    rows = measure_strength(library, CALIBRATION, sampling=SamplingParams(max_tokens=6))
    strength = load_basis(library.files.folder / "soup.json").strength
    assert strength in module.CANDIDATES
    assert strength in rows
    assert library.strength == strength
    again = Library.load(library.files.folder)
    expected = strength * np.array([1.0, 0.0, 0.0])
    coefficients = again.decide("a", method="soup", known=known()).coefficients
    assert list(coefficients.values()) == pytest.approx(expected.tolist())


def known():
    from palate.core.decision import Known

    return Known(preference={"kind": 1.0})


def test_a_budget_that_nothing_keeps_gives_the_smallest_candidate(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = library.basis.settings.model_copy(update={"budget": 1e-9})
    library.__dict__["basis"] = replace(library.basis, settings=settings)
    rows = measure_strength(library, CALIBRATION, sampling=SamplingParams(max_tokens=4))
    assert library.strength == module.CANDIDATES[0]
    assert len(rows) == 1


def test_repeats_are_counted_within_an_answer(library: Library) -> None:
    work = module._Work(library, CALIBRATION, SamplingParams(max_tokens=4), 0)
    outputs = [library.generate(prompt, method="base") for prompt in ("Why?", "How?")]
    looping, short = (
        replace(one, completion=replace(one.completion, tokens=tokens, log_probs=()))
        for one, tokens in zip(outputs, ((1, 2, 3, 4, 1, 2, 3, 4), (1, 2, 3)), strict=True)
    )
    assert work.wholeness([looping], threshold=-9.0).repeated == pytest.approx(1 / 5)
    assert work.wholeness([looping, short], threshold=-9.0).repeated == pytest.approx(1 / 10)
