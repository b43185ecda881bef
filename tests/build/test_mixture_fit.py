"""Fitting and explaining a library's controller, from an empty head to a page."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from palate.build.mixture_fit import MixtureRun, fit_mixture
from palate.core.decision import Known
from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import read_json, write_json, write_jsonl, write_versioned
from palate.core.protocols import SamplingParams
from palate.core.settings import load_settings
from palate.library.controller import strengths_for
from palate.library.explain import explain_answer
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.manifest import experts_key

SMALL = (
    "fit.trunk.hidden=8",
    "fit.trunk.layers=1",
    "fit.trunk.heads=2",
    "fit.trunk.feed_forward=8",
    "fit.n_updates=2",
    "fit.n_pairs=3",
    "fit.batch_pairs=3",
    "fit.max_tokens=6",
    "n_measured=4",
)
"""The smallest run that goes through everything."""


def with_rules(folder: Path) -> LibraryFolder:
    """The library with a rule as the reward of every objective."""
    library = LibraryFolder.open(folder)
    for place, name in enumerate(library.manifest.objective_names):
        prefer = "shorter" if place % 2 == 0 else "longer"
        rule = {"kind": "length", "unit": "characters", "low": 1, "high": 30, "prefer": prefer}

        def fill(target: Path, name: str = name, rule: dict = rule) -> None:
            content = {"objective": name, "rule": rule}
            write_versioned(target / "rule.json", kind="palate-rule", version=1, content=content)

        library = library.with_reward(name, fill, key=name)
    return library


@pytest.fixture(scope="module")
def folder(tiny_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("mixed") / "library"
    shutil.copytree(tiny_library, copy)
    with_rules(copy)
    return copy


@pytest.fixture(scope="module")
def opened(folder: Path) -> Library:
    return Library.load(folder)


@pytest.fixture(scope="module")
def run(opened: Library, tmp_path_factory: pytest.TempPathFactory) -> MixtureRun:
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    write_jsonl(prompts, [{"prompt": "What is rain?"}, {"prompt": "Why?"}])
    first, second = opened.manifest.objective_names[:2]
    plain = load_settings(MixtureRun, overrides=[*SMALL, f"prompts={prompts}"])
    both = {first: 0.5, second: 0.5}
    return plain.model_copy(
        update={"combinations": (both, {first: 0.25, second: 0.75}), "held_out": ({first: 1.0},)}
    )


@pytest.fixture(scope="module")
def fitted(opened: Library, run: MixtureRun):
    return fit_mixture(opened, run)


def test_a_run_leaves_a_controller_curves_and_measurements(fitted, opened: Library) -> None:
    assert len(fitted.curves) == 2
    assert set(fitted.before) == {"trained", "held_out"}
    assert fitted.before["trained"].mean_entropy == pytest.approx(np.log(2))
    assert fitted.after["held_out"].mean_entropy == pytest.approx(0.0)  # one expert, no choice
    assert 0.0 <= fitted.after["trained"].reward <= 1.0
    assert (opened.files.folder / "controller" / "model.safetensors").is_file()


def test_the_saved_controller_answers_and_knows_what_it_was_trained_on(
    fitted, opened: Library
) -> None:
    fresh = Library.load(opened.files.folder)
    first, second = opened.manifest.objective_names[:2]
    controller = fresh.controller
    assert controller is not None
    assert controller.is_trained_on(strengths_for(opened.manifest, {first: 0.5, second: 0.5}))
    assert not controller.is_trained_on(strengths_for(opened.manifest, {first: 1.0}))
    both = {first: 0.5, second: 0.5}
    one, again = (
        fresh.generate(
            "Why?", preference=both, method="mixture", sampling=SamplingParams(max_tokens=5)
        )
        for _ in range(2)
    )
    assert one.completion.tokens == again.completion.tokens


def test_answering_by_mixture_uses_the_controller_and_says_what_it_was_trained_on(
    fitted, opened: Library
) -> None:
    fresh = Library.load(opened.files.folder)
    first, second = opened.manifest.objective_names[:2]
    decision = fresh.decide("Why?", Known(preference={first: 0.5, second: 0.5}), method="mixture")
    assert decision.plan.pool.controller is not None
    assert "controller gives the shares" in decision.reason
    assert "was trained on" in decision.reason
    assert decision.coefficients == pytest.approx({first: 0.5, second: 0.5})
    uneven = Known(preference={first: 0.9, second: 0.1})
    assert "was not trained on" in fresh.decide("Why?", uneven, method="mixture").reason
    given = Known(coefficients={first: 1.0, second: 3.0})
    shares = fresh.decide("Why?", given, method="mixture").coefficients
    assert shares == pytest.approx({first: 0.25, second: 0.75})
    with pytest.raises(InvalidInputError, match="Nothing is known"):
        fresh.decide("Why?", method="mixture")


def test_the_library_lists_its_controller(fitted, opened: Library) -> None:
    part = LibraryFolder.open(opened.files.folder).manifest.controller
    assert part is not None
    assert set(part.files) == {"config.json", "model.safetensors", "run.json"}
    assert part.key == experts_key(opened.manifest)


def test_an_explanation_sums_to_one_everywhere_and_is_written(
    fitted, opened: Library, tmp_path: Path
) -> None:
    first, second = opened.manifest.objective_names[:2]
    told = explain_answer(
        Library.load(opened.files.folder),
        "Why?",
        {first: 0.5, second: 0.5},
        sampling=SamplingParams(max_tokens=5),
        out=tmp_path / "page.html",
    )
    for token in told.tokens:
        assert sum(token.shares) == pytest.approx(1.0, abs=1e-6)
        assert sum(token.responsibilities) == pytest.approx(1.0, abs=1e-9)
    assert "<!doctype html>" in (tmp_path / "page.html").read_text()


def test_a_controller_of_other_experts_is_refused(
    fitted, tiny_library: Path, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "library"
    shutil.copytree(folder, copy)

    def fill(target: Path) -> None:
        shutil.copytree(folder / "controller", target, dirs_exist_ok=True)
        content = read_json(target / "run.json")
        write_json(target / "run.json", {**content, "experts": "other"})

    LibraryFolder.open(copy).with_controller(fill, key="other")
    stale = Library.load(copy)
    known = Known(preference={"kind": 1.0})
    with pytest.raises(FormatError, match="other experts"):
        stale.decide("Why?", known, method="mixture")
    assert stale.generate("Why?", method="base", sampling=SamplingParams(max_tokens=2))
    plain = tmp_path / "plain"
    shutil.copytree(tiny_library, plain)
    with pytest.raises(InvalidInputError, match="has no controller"):
        Library.load(plain).decide("Why?", Known(preference={"kind": 1.0}), method="mixture")


def test_objectives_and_combinations_that_cannot_be_served_are_refused(
    opened: Library, run: MixtureRun
) -> None:
    with pytest.raises(InvalidInputError, match="unknown objective"):
        strengths_for(opened.manifest, {"nothing": 1.0})
    nothing_left = run.model_copy(update={"held_out": run.combinations})
    with pytest.raises(InvalidInputError, match="held out"):
        fit_mixture(opened, nothing_left)
