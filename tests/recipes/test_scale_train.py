"""One expert on one process, and on two that `accelerate launch` starts: the same run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from fakes import save_tiny_llama
from palate.core.errors import InvalidInputError
from palate.experts.job import TrainSettings, n_processes, process_batch
from palate.recipes.run_file import RunSettings
from palate.recipes.scale_train import train_anchor
from palate.recipes.workshop import open_workshop

BIN = Path(sys.executable).parent
LOSS_TOLERANCE = 1e-5  # relative: sums over the batch are taken in another order
PARAMETER_TOLERANCE = 1e-4  # of Adam's steps at a learning rate of 0.01


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scale")
    base = save_tiny_llama(root / "base")
    rows = [json.dumps({"prompt": f"prompt {k}"}) for k in range(6)]
    (root / "prompts.jsonl").write_text("\n".join(rows))
    rule = {"kind": "length", "low": 2, "high": 8}
    settings = RunSettings.model_validate(
        {
            "base": str(base),
            "prompts": str(root / "prompts.jsonl"),
            "objectives": [
                {"name": name, "reward": {"rule": {**rule, "prefer": prefer}}}
                for name, prefer in (("long", "longer"), ("short", "shorter"))
            ],
            "rollouts": {"n_completions": 4, "max_tokens": 12},
            "adapter": {"rank": 4},
            "training": {"n_steps": 6, "batch_pairs": 8, "accumulate": 2, "learning_rate": 0.01},
        }
    )
    open_workshop(settings, out=root / "library")
    return root / "library"


@pytest.mark.slow
def test_two_processes_have_the_losses_and_the_adapter_of_one(
    library: Path, tmp_path: Path, project_root: Path
) -> None:
    alone = train_anchor(library, "long", out=tmp_path / "one")
    done = subprocess.run(
        [
            BIN / "accelerate",
            "launch",
            "--config_file",
            project_root / "examples/accelerate/ddp-cpu.yaml",
            "--main_process_port",
            "0",
            "--no_python",
            BIN / "palate",
            "scale",
            "train",
            library,
            "long",
            "--out",
            tmp_path / "two",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "two/losses.json").read_text())
    assert found["n_processes"] == 2
    assert alone.n_processes == 1
    assert len(found["losses"]) == 6
    assert len(set(found["losses"])) == 6
    assert np.allclose(found["losses"], alone.losses, rtol=LOSS_TOLERANCE, atol=1e-7)
    left = load_file(tmp_path / "one/adapter_model.safetensors")
    right = load_file(tmp_path / "two/adapter_model.safetensors")
    assert left.keys() == right.keys()
    moved = [float(left[name].abs().max()) for name in left if "lora_B" in name]
    assert min(moved) > 0.001  # B starts at zero: training did something
    gap = max(float((left[name] - right[name]).abs().max()) for name in left)
    print(f"largest parameter difference {gap:.1e}, losses {alone.losses}")  # noqa: T201
    assert gap < PARAMETER_TOLERANCE


def test_a_run_is_written_once_and_repeats_itself(library: Path, tmp_path: Path) -> None:
    first = train_anchor(library, "short", out=tmp_path / "a", n_steps=2)
    second = train_anchor(library, "short", out=tmp_path / "b", n_steps=2)
    assert first.losses == second.losses
    assert json.loads((tmp_path / "a/losses.json").read_text())["losses"] == list(first.losses)
    with pytest.raises(InvalidInputError, match="exists"):
        train_anchor(library, "short", out=tmp_path / "a")
    with pytest.raises(InvalidInputError, match="no expert or objective 'wide'"):
        train_anchor(library, "wide", out=tmp_path / "c")


def test_processes_share_the_batch_and_an_uneven_share_is_refused(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings(batch_pairs=12, accumulate=2)
    assert (n_processes(), process_batch(settings)) == (1, 6)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert n_processes() == 1  # the variable alone is no launch
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(InvalidInputError, match="6 pairs cannot be split between 4"):
        process_batch(settings)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert process_batch(settings) == 2
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InvalidInputError, match="never checked"):
        train_anchor(library, "short", out=tmp_path / "d")
