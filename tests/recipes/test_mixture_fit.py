"""Fitting and explaining a library's controller, from an empty head to a page."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import read_json, write_json, write_jsonl, write_versioned
from palate.core.protocols import Sampling
from palate.core.seeds import derive_seed
from palate.core.settings import load_settings
from palate.experts.library import Library
from palate.recipes.answer import answer
from palate.recipes.mixture_explain import explain_answer
from palate.recipes.mixture_fit import MixtureRun, fit_mixture
from palate.recipes.mixture_open import experts_key, open_mixture, strengths_for
from palate.recipes.opened import Opened, open_library
from palate.recipes.ways import Asked as Taste

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


def with_rules(folder: Path) -> Library:
    """The library with a rule as the reward of every objective."""
    library = Library.open(folder)
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
def opened(folder: Path) -> Opened:
    return open_library(folder)


@pytest.fixture(scope="module")
def run(opened: Opened, tmp_path_factory: pytest.TempPathFactory) -> MixtureRun:
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    write_jsonl(prompts, [{"prompt": "What is rain?"}, {"prompt": "Why?"}])
    first, second = opened.library.manifest.objective_names[:2]
    plain = load_settings(MixtureRun, overrides=[*SMALL, f"prompts={prompts}"])
    both = {first: 0.5, second: 0.5}
    return plain.model_copy(
        update={"combinations": (both, {first: 0.25, second: 0.75}), "held_out": ({first: 1.0},)}
    )


@pytest.fixture(scope="module")
def fitted(opened: Opened, run: MixtureRun):
    return fit_mixture(opened, run)


def test_a_run_leaves_a_controller_curves_and_measurements(fitted, opened: Opened) -> None:
    assert len(fitted.curves) == 2
    assert set(fitted.before) == {"trained", "held_out"}
    assert fitted.before["trained"].mean_entropy == pytest.approx(np.log(2))
    assert fitted.after["held_out"].mean_entropy == pytest.approx(0.0)  # one expert, no choice
    assert 0.0 <= fitted.after["trained"].reward <= 1.0
    assert (opened.library.folder / "controller" / "model.safetensors").is_file()


def test_the_saved_controller_answers_and_knows_what_it_was_trained_on(
    fitted, opened: Opened
) -> None:
    mixture = open_mixture(opened)
    first, second = opened.library.manifest.objective_names[:2]
    assert mixture.controller.fingerprint == open_mixture(opened).controller.fingerprint
    assert mixture.is_trained_on({first: 0.5, second: 0.5})
    assert not mixture.is_trained_on({first: 1.0})
    request = mixture.request("Why?", {first: 0.5, second: 0.5}, sampling=Sampling(max_tokens=5))
    one, again = (mixture.engine.generate([request])[0] for _ in range(2))
    assert one.tokens == again.tokens


def test_answering_by_mixture_uses_the_controller_where_there_is_one_and_says_which(
    fitted, opened: Opened, tiny_library: Path
) -> None:
    first, second = opened.library.manifest.objective_names[:2]
    sampling = Sampling(max_tokens=5)
    both = Taste("mixture", preference={first: 0.5, second: 0.5})
    found = answer(opened, "Why?", both, sampling=sampling, n=2, seed=3)
    assert found.chosen.plan.pool.controller is not None
    assert "controller gives the shares" in found.chosen.reason
    assert "was trained on" in found.chosen.reason
    assert found.chosen.coefficients == pytest.approx({first: 0.5, second: 0.5})
    mixture = open_mixture(open_library(opened.library.folder))
    request = mixture.request(
        "Why?", both.preference, sampling=sampling, seed=derive_seed(3, "answer", 1)
    )
    assert mixture.engine.generate([request])[0].tokens == found.completions[1].tokens
    uneven = Taste("mixture", preference={first: 0.9, second: 0.1})
    assert "was not trained on" in answer(opened, "Why?", uneven, sampling=sampling).chosen.reason
    given = Taste("mixture", coefficients={first: 1.0, second: 3.0})
    plain = answer(open_library(tiny_library), "Why?", both, sampling=sampling)
    for fixed in (answer(opened, "Why?", given, sampling=sampling), plain):
        assert fixed.chosen.plan.pool.controller is None
        assert "Fixed shares" in fixed.chosen.reason
    with pytest.raises(InvalidInputError, match="Nothing is known"):
        answer(opened, "Why?", Taste("mixture"), sampling=sampling)


def test_the_library_lists_its_controller(fitted, opened: Opened) -> None:
    part = Library.open(opened.library.folder).manifest.controller
    assert part is not None
    assert set(part.files) == {"config.json", "model.safetensors", "run.json"}
    assert part.key == experts_key(opened.library.manifest)


def test_an_explanation_sums_to_one_everywhere_and_is_written(
    fitted, opened: Opened, tmp_path: Path
) -> None:
    first, second = opened.library.manifest.objective_names[:2]
    told = explain_answer(
        open_mixture(opened),
        "Why?",
        {first: 0.5, second: 0.5},
        sampling=Sampling(max_tokens=5),
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

    Library.open(copy).with_controller(fill, key="other")
    with pytest.raises(FormatError, match="other experts"):
        open_mixture(open_library(copy))
    plain = tmp_path / "plain"
    shutil.copytree(tiny_library, plain)
    with pytest.raises(InvalidInputError, match="has no controller"):
        open_mixture(open_library(plain))


def test_objectives_and_combinations_that_cannot_be_served_are_refused(
    opened: Opened, run: MixtureRun
) -> None:
    with pytest.raises(InvalidInputError, match="unknown objective"):
        strengths_for(opened.library.manifest, {"nothing": 1.0})
    nothing_left = run.model_copy(update={"held_out": run.combinations})
    with pytest.raises(InvalidInputError, match="held out"):
        fit_mixture(opened, nothing_left)
