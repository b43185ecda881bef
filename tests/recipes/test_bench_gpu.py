"""The accelerator's benchmark: the same command at toy size where there is none."""

import pytest
import torch

from palate.core.errors import InvalidInputError
from palate.models.peers import Cache, random_base
from palate.recipes.bench_gpu import SIZES, GpuBenchSettings, HeadExperts, bench_gpu


def test_without_a_gpu_it_runs_at_toy_size_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = GpuBenchSettings(people=(1, 3), n_experts=2, rank=4, context_tokens=8, n_repeats=1)
    found = bench_gpu(settings).to_json()
    assert found["settings"]["size"] == "toy"
    assert "no GPU" in found["note"]
    assert 0 < found["gate"]["largest_difference"] <= found["gate"]["limit"]
    assert found["soup_step_over_base"].keys() == {"1", "3"}
    assert found["people_state_bytes"] == 10_000 * 2 * 8
    assert found["head_experts_step_over_base"] > 0
    with pytest.raises(InvalidInputError, match="8b needs a GPU"):
        bench_gpu(GpuBenchSettings(size="8b"))


def test_experts_on_the_head_need_one_cache_and_are_the_dense_ones() -> None:
    settings = GpuBenchSettings(n_experts=3, rank=2)
    base = random_base(SIZES["toy"], seed=1)
    experts, cache = HeadExperts(base, settings), Cache()
    ids = torch.tensor([[5, 7, 11, 13]])
    with torch.inference_mode():
        found = experts.logits(ids, cache)
        hidden = base.model.model(ids).last_hidden_state[0, -1]
        weight = base.model.get_output_embeddings().weight
        for row, factor in zip(found, experts.factors.values(), strict=True):
            dense = weight + factor.scale * factor.up @ factor.down
            assert torch.allclose(row, dense @ hidden, atol=1e-5)
    assert cache.get_seq_length() == 4
    assert cache.layers[0].keys.shape[0] == 1  # whatever the number of experts


@pytest.mark.gpu
def test_on_a_gpu_it_runs_at_real_size() -> None:
    found = bench_gpu(GpuBenchSettings(n_repeats=3)).to_json()
    assert found["settings"]["size"] == "1b"
    assert found["note"] == ""
