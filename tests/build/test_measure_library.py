"""What a build measures of its library, and what it leaves as it is."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from palate.build.calibration import CalibrationSettings
from palate.build.measure import measure_library
from palate.build.run_file import RunSettings
from palate.build.soup_fit import stored_floor, write_soup
from palate.build.strength import set_strength, strength_key
from palate.core.decision import Known
from palate.core.errors import FormatError, InvalidCoefficientsError
from palate.core.protocols import SamplingParams
from palate.library.folder import LibraryFolder
from palate.library.library import DEFAULT_STRENGTH, Library
from palate.library.soup import has_own_basis


@pytest.fixture
def folder(tiny_floored_library: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_floored_library, tmp_path / "library"))


def retrained(folder: Path) -> Library:
    """The library with other parameters of the expert `kind`."""
    files = LibraryFolder.open(folder)
    record = files.manifest.expert("kind")
    source = files.expert_folder("short")

    def fill(target: Path) -> None:
        shutil.copytree(source, target, dirs_exist_ok=True)

    files.with_expert(record, fill).with_experts_of(files.manifest.expert_names)
    return Library.load(folder)


def test_a_basis_of_other_parameters_is_no_longer_the_librarys(folder: Path) -> None:
    assert has_own_basis(LibraryFolder.open(folder))
    library = retrained(folder)
    assert library.manifest.expert_names == ("kind", "short", "plain")
    assert not has_own_basis(library.files)
    write_soup(library, floor=stored_floor(library.files))
    assert has_own_basis(library.files)
    assert library.basis.strength is None  # to be measured again


def test_the_safety_floor_survives_other_experts(folder: Path) -> None:
    fewer = LibraryFolder.open(folder).with_experts_of(("kind", "plain"))
    assert stored_floor(fewer) == {"plain": 0.3}
    library = Library.load(folder)
    write_soup(library, floor=stored_floor(library.files))
    assert library.floor is not None
    assert (library.floor.name, library.floor.coefficient) == ("plain", 0.3)


def test_a_floor_on_an_expert_that_is_gone_stops_the_build(folder: Path) -> None:
    without = LibraryFolder.open(folder).with_experts_of(("kind", "short"))
    with pytest.raises(InvalidCoefficientsError, match="is on the expert 'plain'"):
        stored_floor(without)


def test_a_stale_controller_stops_the_mixture_and_nothing_else(
    tiny_full_library: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_full_library, tmp_path / "library"))
    library = retrained(folder)
    with pytest.raises(FormatError, match="run 'palate soup basis' again"):
        library.decide("a")  # whether there is a safety floor is not known
    write_soup(library)
    assert library.controller is None
    known = Known(preference={"kind": 1.0})
    assert library.generate("a", method="soup", preference=known.preference).text is not None
    assert library.generate("a", method="base", sampling=SamplingParams(max_tokens=2))


def test_a_stated_strength_holds_also_where_too_few_prompts_measure_nothing(
    tiny_soup_library: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_soup_library, tmp_path / "library"))
    settings = RunSettings.model_validate(
        {
            "model_name_or_path": "base",
            "objectives": [{"name": "kind"}],
            "prompts": [f"prompt {k}" for k in range(30)],
            "calibration": {"strength": 2.0},
        }
    )
    found = measure_library(settings, out=folder)
    assert found is not None
    assert (found.strength, found.table) == (2.0, None)
    assert Library.load(folder).strength == 2.0
    bare = settings.model_copy(update={"calibration": CalibrationSettings()})
    again = measure_library(bare, out=folder)
    assert again is not None
    assert again.strength == DEFAULT_STRENGTH  # what was stated went with its setting


def test_a_strength_is_measured_again_where_what_it_was_measured_on_changes(
    tiny_soup_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_soup_library, tmp_path / "library"))
    measured: list[float] = []

    def measure(library, prompts, *, sampling, seed):
        measured.append(sampling.temperature)
        set_strength(library, 1.5, source=strength_key(library, prompts, sampling, seed=seed))

    monkeypatch.setattr("palate.build.measure.measure_strength", measure)
    monkeypatch.setattr("palate.build.measure._calibrated", lambda *_: None)

    def run(**calibration: Any) -> float:
        content = {
            "model_name_or_path": "base",
            "objectives": [{"name": "kind"}],
            "prompts": [f"prompt {k}" for k in range(30)],
            "calibration": {"prompts": [f"other {k}" for k in range(12)], **calibration},
        }
        found = measure_library(RunSettings.model_validate(content), out=folder)
        assert found is not None
        return found.strength

    assert [run(), run(), run(temperature=0.7)] == [1.5, 1.5, 1.5]
    assert measured == [1.0, 0.7]
    assert [run(strength=2.0), run(strength=2.0), run()] == [2.0, 2.0, 1.5]
    assert measured == [1.0, 0.7, 1.0]
