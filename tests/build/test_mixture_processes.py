"""A controller on one process, and on two that `accelerate launch` starts: the same curves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from palate.build.mixture_fit import TRAINING_FOLDER, MixtureRun, fit_mixture
from palate.core.errors import InvalidInputError
from palate.core.files import read_jsonl, write_jsonl, write_versioned
from palate.core.settings import load_settings
from palate.core.types import BaseRecord, Objective
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.manifest import ExpertRecord, Manifest
from palate.mixture import mope
from palate.models.load import load_base
from palate.training.anchors import Anchor
from scripted import save_scripted

BIN = Path(sys.executable).parent
LOSS_TOLERANCE = 1e-4  # relative: sums over a step are taken in another order, for six updates
PARAMETER_TOLERANCE = 1e-4  # of Adam's steps at rates of 0.002 and 0.005


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experts that write by a script: digits and letters, which rules want more or fewer of."""
    root = tmp_path_factory.mktemp("shared")
    base_folder, adapters = save_scripted(root)
    base = load_base(base_folder)
    names = tuple(adapters)
    record = BaseRecord(base.path, None, base.fingerprint, base.tokenizer_fingerprint)
    found = LibraryFolder.create(
        root / "library", Manifest(record, tuple(map(Objective, names)), beta=0.1, seed=0)
    )
    for place, name in enumerate(names):
        direction = tuple(float(k == place) for k in range(2))
        found = found.with_expert(
            ExpertRecord(Anchor(name, names, direction), key=name, files={}),
            lambda target, name=name: copy_into(adapters[name], target),
        )
        prefer = ("longer", "shorter")[place]
        rule = {"kind": "length", "unit": "characters", "low": 1, "high": 16, "prefer": prefer}

        def fill(target: Path, name: str = name, rule: dict[str, object] = rule) -> None:
            content = {"objective": name, "rule": rule}
            write_versioned(target / "rule.json", kind="palate-rule", version=1, content=content)

        found = found.with_reward(name, fill, key=name)
    return root / "library"


def copy_into(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


@pytest.fixture
def run_file(library: Path, tmp_path: Path) -> Path:
    write_jsonl(
        tmp_path / "prompts.jsonl", [{"prompt": text} for text in ("What is rain?", "Why?")]
    )
    first, second = LibraryFolder.open(library).manifest.objective_names[:2]
    trunk = {"hidden": 16, "layers": 1, "heads": 2, "feed_forward": 16}
    fit = {
        "trunk": trunk,
        "n_updates": 6,
        "n_pairs": 15,  # an odd number: shares are uneven
        "batch_pairs": 8,
        "n_epochs": 2,
        "max_tokens": 24,
        "body_rate": 0.002,
        "head_rate": 0.005,
    }
    content = {
        "prompts": str(tmp_path / "prompts.jsonl"),
        "combinations": [{first: 0.5, second: 0.5}, {first: 0.25, second: 0.75}],
        "n_measured": 5,
        "fit": fit,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "run.yaml"


def launched(
    library: Path, run_file: Path, root: Path, *options: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            *(BIN / "accelerate", "launch", "--config_file"),
            *(root / "examples/accelerate/ddp-cpu.yaml", "--main_process_port", "0"),
            *("--no_python", BIN / "palate", "mixture", "fit", library, run_file, "--json"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_two_processes_have_the_curves_and_the_controller_of_one(
    library: Path, run_file: Path, tmp_path: Path, project_root: Path
) -> None:
    one, two = (Path(shutil.copytree(library, tmp_path / name)) for name in ("one", "two"))
    fit_mixture(Library.load(one), load_settings(MixtureRun, run_file))
    done = launched(two, run_file, project_root)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('"folder"') == 1  # the first process speaks for all
    left, right = (
        read_jsonl(f / TRAINING_FOLDER / "curves.jsonl", what="curves") for f in (one, two)
    )
    assert len(left) == len(right) == 6
    for name in ("reward", "first_loss", "last_loss", "kl_to_uniform"):
        alone, together = (np.array([row[name] for row in rows]) for rows in (left, right))
        print(f"{name}: largest difference {np.abs(alone - together).max():.1e}")  # noqa: T201
        assert np.allclose(alone, together, rtol=LOSS_TOLERANCE, atol=1e-6), name
    assert len({row["last_loss"] for row in left}) == 6
    assert left[0]["kl_to_uniform"] == pytest.approx(0.0, abs=1e-6)
    assert abs(left[-1]["kl_to_uniform"]) > 1e-4  # training did something
    ours, theirs = (load_file(folder / "controller/model.safetensors") for folder in (one, two))
    gap = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    print(f"largest parameter difference {gap:.1e}")  # noqa: T201
    assert gap < PARAMETER_TOLERANCE
    again = launched(two, run_file, project_root)  # a finished run is found finished by both
    assert again.returncode == 0, again.stderr[-3000:]
    assert read_jsonl(two / TRAINING_FOLDER / "curves.jsonl", what="curves") == right


def test_ppo_on_several_processes_is_refused_with_a_sentence(
    library: Path, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(library, tmp_path / "library"))
    run = load_settings(MixtureRun, run_file, overrides=["fit.loss.method=ppo"])
    monkeypatch.setattr(mope, "n_together", lambda: 2)
    with pytest.raises(InvalidInputError, match="2 processes cannot share a step of PPO"):
        fit_mixture(Library.load(copy), run)
