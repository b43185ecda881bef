"""A step of a Llama in few operations is that of transformers, with padding and with experts."""

import copy
from collections.abc import Sequence

import pytest
import torch
from transformers import LlamaForCausalLM

from fakes import llama
from palate.models import cache as cache_module
from palate.models.cache import RowCache, empty_kv
from palate.models.step import is_plain_llama

LENGTHS = (7, 3, 5)


def steps(model: LlamaForCausalLM, lengths: Sequence[int]) -> torch.Tensor:
    """Logits of four steps after prompts of these lengths."""
    generator = torch.Generator().manual_seed(1)
    width = max(lengths)
    mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths])
    cache = RowCache(empty_kv(), mask)
    ids = torch.randint(1, 64, (len(lengths), width), generator=generator)
    rows = [cache.logits(model, ids)]
    for _ in range(4):
        cache.extend()
        new = torch.randint(1, 64, (len(lengths), 1), generator=generator)
        rows.append(cache.logits(model, new))
    return torch.stack(rows)


@pytest.mark.parametrize("n_kv", [1, 2, 6])
@pytest.mark.parametrize("lengths", [LENGTHS, (4, 4), (1,)])
@torch.inference_mode()
def test_logits_are_those_of_transformers(
    lengths: Sequence[int], n_kv: int, monkeypatch: pytest.MonkeyPatch
):
    model = llama(n_kv=n_kv)
    own = steps(model, lengths)
    monkeypatch.setattr(cache_module, "is_plain_llama", lambda _model: False)
    assert torch.allclose(own, steps(model, lengths), atol=2e-6)


@torch.inference_mode()
def test_bfloat16_is_as_near_to_float32_as_in_transformers(monkeypatch: pytest.MonkeyPatch):
    model = llama()
    exact = steps(model, LENGTHS)
    rounded = copy.deepcopy(model).bfloat16()
    own = steps(rounded, LENGTHS).float()
    monkeypatch.setattr(cache_module, "is_plain_llama", lambda _model: False)
    others = steps(rounded, LENGTHS).float()
    assert not torch.equal(own, others)
    assert (own - exact).norm() < 1.5 * (others - exact).norm()


@torch.inference_mode()
def test_hooks_of_the_layers_are_called(monkeypatch: pytest.MonkeyPatch):
    model = llama()
    plain = steps(model, LENGTHS)
    for layer in model.model.layers:
        for module in (layer.self_attn.k_proj, layer.self_attn.o_proj, layer.mlp.up_proj):
            module.register_forward_hook(lambda _module, args, output: output + args[0].mean())
    own = steps(model, LENGTHS)
    assert not torch.allclose(own, plain, atol=1e-3)
    monkeypatch.setattr(cache_module, "is_plain_llama", lambda _model: False)
    assert torch.allclose(own, steps(model, LENGTHS), atol=2e-6)


def test_only_a_llama_of_transformers_own_classes_is_plain():
    class Own(LlamaForCausalLM):
        """Another step, perhaps."""

    model = llama()
    assert is_plain_llama(model)
    assert not is_plain_llama(Own(model.config))
    assert not is_plain_llama(torch.nn.Linear(2, 2))
