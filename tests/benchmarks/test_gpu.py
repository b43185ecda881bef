"""The accelerator's benchmark: the same command at toy size where there is none."""

import pytest
import torch

from benchmarks.gpu import GpuBenchSettings, bench_gpu
from palate.core.errors import InvalidInputError


def test_without_a_gpu_it_runs_at_toy_size_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = GpuBenchSettings(users=(1, 3), n_experts=2, rank=4, context_tokens=8, n_repeats=1)
    found = bench_gpu(settings).to_json()
    assert found["settings"]["size"] == "toy"
    assert "no GPU" in found["note"]
    assert 0 < found["gate"]["largest_difference"] <= found["gate"]["limit"]
    assert found["soup_step_over_base"].keys() == {"1", "3"}
    assert found["users_state_bytes"] == 10_000 * 2 * 8
    assert found["head_experts_step_over_base"] > 0
    with pytest.raises(InvalidInputError, match="8b needs a GPU"):
        bench_gpu(GpuBenchSettings(size="8b"))


@pytest.mark.gpu
def test_on_a_gpu_it_runs_at_real_size() -> None:
    found = bench_gpu(GpuBenchSettings(n_repeats=3)).to_json()
    assert found["settings"]["size"] == "1b"
    assert found["note"] == ""
