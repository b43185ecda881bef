"""One expert on one process, and on two that `accelerate launch` starts: the same run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fakes import save_tiny_llama
from palate.build.builder import open_builder
from palate.build.run_file import RunSettings
from palate.build.train_job import Trained, _split, train_anchor
from palate.core.errors import InvalidInputError
from palate.models.processes import n_launched
from palate.training.job import TrainSettings, pass_pairs
from palate.training.pair_trainer import require_sharded

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
            "model_name_or_path": str(base),
            "prompts": str(root / "prompts.jsonl"),
            "objectives": [
                {"name": name, "reward": {"rule": {**rule, "prefer": prefer}}}
                for name, prefer in (("long", "longer"), ("short", "shorter"))
            ],
            "rollouts": {"num_generations": 4, "max_completion_length": 12},
            "adapter": {"r": 4},
            "training": {
                "max_steps": 6,
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 2,
                "learning_rate": 0.01,
            },
        }
    )
    open_builder(settings, out=root / "library")
    return root / "library"


@pytest.fixture(scope="module")
def alone(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_anchor(library, "long", out=tmp_path_factory.mktemp("alone") / "one")


def launched(config: Path, out: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """`build --expert` of the expert `long` on two processes of this machine."""
    return subprocess.run(
        [
            *(BIN / "accelerate", "launch", "--config_file", config, "--num_processes", "2"),
            *("--main_process_port", "0", *words, "long", "--out", out),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def require_same_run(alone: Trained, out: Path) -> None:
    """The losses and the adapter of two processes are those of one, which moved."""
    found = json.loads((out / "losses.json").read_text())
    assert (alone.n_processes, found["n_processes"]) == (1, 2)
    assert len(set(found["losses"])) == len(found["losses"]) == 6
    assert np.allclose(found["losses"], alone.losses, rtol=LOSS_TOLERANCE, atol=1e-7)
    left = load_file(alone.folder / "adapter_model.safetensors")
    right = load_file(out / "adapter_model.safetensors")
    assert left.keys() == right.keys()
    moved = [float(left[name].abs().max()) for name in left if "lora_B" in name]
    assert min(moved) > 0.001  # B starts at zero: training did something
    gap = max(float((left[name] - right[name]).abs().max()) for name in left)
    worst = np.abs(np.array(found["losses"]) - alone.losses).max()
    print(f"largest difference of a parameter {gap:.1e}, of a loss {worst:.1e}")  # noqa: T201
    assert gap < PARAMETER_TOLERANCE


@pytest.mark.slow
def test_two_processes_have_the_losses_and_the_adapter_of_one(
    library: Path, alone: Trained, tmp_path: Path, project_root: Path
) -> None:
    config = project_root / "examples/accelerate/ddp-cpu.yaml"
    words = ("--no_python", BIN / "palate", "build", library, "--expert")
    done = launched(config, tmp_path / "two", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    require_same_run(alone, tmp_path / "two")
    assert not json.loads((tmp_path / "two/losses.json").read_text())["is_sharded"]


@pytest.mark.slow
def test_two_processes_that_shard_have_the_losses_and_the_adapter_of_one(
    library: Path, alone: Trained, tmp_path: Path, project_root: Path
) -> None:
    config = project_root / "examples/accelerate/fsdp.yaml"
    words = (project_root / "tests/fsdp_on_cpus.py", "build", library, "--expert")
    done = launched(config, tmp_path / "two", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    require_same_run(alone, tmp_path / "two")
    assert json.loads((tmp_path / "two/losses.json").read_text())["is_sharded"]


@pytest.mark.slow
def test_fsdp_on_cpus_is_refused_since_accelerate_would_shard_nothing(
    library: Path, tmp_path: Path, project_root: Path
) -> None:
    config = project_root / "examples/accelerate/fsdp.yaml"
    done = launched(
        config, tmp_path / "two", "--no_python", BIN / "palate", "build", library, "--expert"
    )
    assert done.returncode != 0
    assert "accelerate runs DistributedType.MULTI_CPU on cpu and would shard" in done.stderr


def test_a_launch_that_asks_for_sharding_must_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def running(kind: str, *, is_fsdp2: bool) -> SimpleNamespace:
        device = SimpleNamespace(type="cuda")
        return SimpleNamespace(distributed_type=kind, is_fsdp2=is_fsdp2, device=device)

    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    require_sharded(running("DistributedType.NO", is_fsdp2=False))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    require_sharded(running("DistributedType.FSDP", is_fsdp2=True))
    with pytest.raises(InvalidInputError, match="set fsdp_version to 2"):
        require_sharded(running("DistributedType.FSDP", is_fsdp2=False))
    with pytest.raises(InvalidInputError, match=r"MULTI_GPU on cuda and would shard nothing"):
        require_sharded(running("DistributedType.MULTI_GPU", is_fsdp2=False))


def test_a_step_can_be_split_into_other_passes_than_the_librarys(
    library: Path, alone: Trained, tmp_path: Path
) -> None:
    found = train_anchor(library, "long", out=tmp_path / "four", gradient_accumulation_steps=4)
    assert len(found.losses) == len(alone.losses) == 6
    assert found.losses != alone.losses  # like lengths are put together pass by pass: another order
    with pytest.raises(InvalidInputError, match="batch of 8 pairs cannot be split into 3 passes"):
        train_anchor(library, "long", out=tmp_path / "three", gradient_accumulation_steps=3)


def test_a_run_is_written_once_and_repeats_itself(library: Path, tmp_path: Path) -> None:
    first = train_anchor(library, "short", out=tmp_path / "a", max_steps=2)
    second = train_anchor(library, "short", out=tmp_path / "b", max_steps=2)
    assert first.losses == second.losses
    assert json.loads((tmp_path / "a/losses.json").read_text())["losses"] == list(first.losses)
    with pytest.raises(InvalidInputError, match="exists"):
        train_anchor(library, "short", out=tmp_path / "a")
    with pytest.raises(InvalidInputError, match="no expert or objective 'wide'"):
        train_anchor(library, "wide", out=tmp_path / "c")


def test_an_expert_is_stored_in_the_librarys_dtype_as_a_whole_or_not_at_all(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(shutil.copytree(library, tmp_path / "library"))
    content = json.loads((own / "library.json").read_text())
    content["config"]["adapter"]["dtype"] = "bfloat16"
    (own / "library.json").write_text(json.dumps(content))
    with monkeypatch.context() as patched:
        patched.setattr("palate.build.train_job.write_json", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_anchor(own, "short", out=tmp_path / "a", max_steps=1)
    assert {path.name for path in tmp_path.iterdir()} == {"library"}
    found = train_anchor(own, "short", out=tmp_path / "a", max_steps=1)
    tensors = load_file(found.folder / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_processes_share_the_batch_and_an_uneven_share_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = TrainSettings(per_device_train_batch_size=6, gradient_accumulation_steps=2)
    assert (n_launched(), pass_pairs(settings)) == (1, 6)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert n_launched() == 1  # the variable alone is no launch
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(InvalidInputError, match="12 pairs cannot be split into 2 passes of 4"):
        _split(settings, max_steps=1, n_passes=2)
    assert _split(settings, max_steps=1, n_passes=1).per_device_train_batch_size == 3
    monkeypatch.setenv("WORLD_SIZE", "3")
    split = _split(settings, max_steps=1, n_passes=2)
    assert (split.per_device_train_batch_size, pass_pairs(split)) == (2, 6)
