"""K experts as K independent jobs, gathered: the library of one build, byte for byte."""

import json
import shutil
from pathlib import Path

import pytest

from fakes import save_tiny_llama
from palate.build.library import build_library, gather_experts
from palate.build.run_file import RunSettings
from palate.core.errors import FormatError, InvalidInputError
from palate.library.folder import LibraryFolder


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    root = tmp_path_factory.mktemp("gather")
    base = save_tiny_llama(root / "base")
    rows = [json.dumps({"prompt": f"prompt {k}"}) for k in range(4)]
    (root / "prompts.jsonl").write_text("\n".join(rows))
    rule = {"kind": "length", "low": 2, "high": 8}
    return RunSettings.model_validate(
        {
            "model_name_or_path": str(base),
            "prompts": str(root / "prompts.jsonl"),
            "objectives": [
                {"name": name, "reward": {"rule": {**rule, "prefer": prefer}}}
                for name, prefer in (("long", "longer"), ("short", "shorter"))
            ],
            "rollouts": {"num_generations": 3, "max_completion_length": 8},
            "adapter": {"r": 2},
            "training": {"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01},
        }
    )


def content(folder: Path) -> dict[str, bytes]:
    """The library's files by path; what is cached beside them is no part of it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    own = {str(path.relative_to(folder)): path for path in files}
    return {name: path.read_bytes() for name, path in own.items() if not name.startswith("cache/")}


@pytest.fixture(scope="module")
def jobs(settings: RunSettings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A prepared library, and a copy of it for each expert, trained there."""
    root = tmp_path_factory.mktemp("jobs")
    prepared = build_library(settings, out=root / "library", only=())
    assert prepared.trained == ()
    folders = {"library": root / "library"}
    for name in ("short", "long"):
        folders[name] = Path(shutil.copytree(root / "library", root / name))
        assert build_library(settings, out=folders[name], only=[name]).trained == (name,)
    return folders


def test_experts_of_several_rounds_are_no_independent_jobs(
    settings: RunSettings, tmp_path: Path
) -> None:
    rounds = settings.training.model_copy(update={"n_rounds": 2})
    settings = settings.model_copy(update={"training": rounds})
    with pytest.raises(InvalidInputError, match="with several rounds, trains experts from others'"):
        build_library(settings, out=tmp_path / "library", only=["short"])
    assert not (tmp_path / "library").exists()
    assert build_library(settings, out=tmp_path / "library", only=()).trained == ()


def test_gathered_experts_make_the_library_of_one_build(
    settings: RunSettings, jobs: dict[str, Path], tmp_path: Path
) -> None:
    target = Path(shutil.copytree(jobs["library"], tmp_path / "library"))
    taken = gather_experts(target, [jobs["short"], jobs["long"]])
    assert [name for name, _ in taken] == ["short", "long"]
    whole = build_library(settings, out=tmp_path / "whole")
    assert whole.trained == ("long", "short")
    assert LibraryFolder.open(target).manifest.expert_names == ("long", "short")
    assert content(target) == content(tmp_path / "whole")
    assert gather_experts(target, [jobs["short"]]) == []
    assert build_library(settings, out=target).trained == ()  # nothing is left to train


def test_a_job_leaves_the_other_experts_of_its_library_alone(
    settings: RunSettings, jobs: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(jobs["long"], tmp_path / "both"))
    assert build_library(settings, out=folder, only=["short"]).trained == ("short",)
    assert set(LibraryFolder.open(folder).manifest.expert_names) == {"long", "short"}


def test_experts_of_other_settings_and_unknown_names_are_refused(
    settings: RunSettings, jobs: dict[str, Path], tmp_path: Path
) -> None:
    target = Path(shutil.copytree(jobs["long"], tmp_path / "library"))
    training = settings.training.model_copy(update={"max_steps": 1})
    other = Path(shutil.copytree(jobs["library"], tmp_path / "other"))
    build_library(settings.model_copy(update={"training": training}), out=other, only=["long"])
    with pytest.raises(FormatError, match=r"'long' of .* was made with other settings"):
        gather_experts(target, [other])
    bare = Path(shutil.copytree(jobs["library"], tmp_path / "bare"))
    with pytest.raises(FormatError, match=r"'long' of .* was made with other settings"):
        gather_experts(bare, [other])
    assert LibraryFolder.open(bare).manifest.expert_names == ()
    rollouts = settings.rollouts.model_copy(update={"max_completion_length": 5})
    changed = settings.model_copy(update={"rollouts": rollouts})
    build_library(changed, out=tmp_path / "changed", only=())
    with pytest.raises(FormatError, match="other rollouts than"):
        gather_experts(target, [tmp_path / "changed"])
    with pytest.raises(InvalidInputError, match="no expert 'wide'; it makes long, short"):
        build_library(settings, out=tmp_path / "new", only=["wide"])
