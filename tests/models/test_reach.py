"""How far a layer's change reaches, told by name, against what it does to keys and values."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from fakes import save_tiny_gpt2, save_tiny_llama
from palate.models.load import Base, load_base
from palate.models.reach import is_adaptable, reach_of

IDS = torch.tensor([[5, 9, 2, 7]])


def states(base: Base) -> tuple[list[torch.Tensor], torch.Tensor]:
    output: Any = base.model(IDS, use_cache=True, output_hidden_states=True)
    kept = [part for layer in output.past_key_values.layers for part in (layer.keys, layer.values)]
    return kept, output.hidden_states[-1]


@pytest.mark.parametrize("save", [save_tiny_llama, save_tiny_gpt2])
@torch.inference_mode()
def test_what_is_told_by_name_is_what_a_changed_layer_does(save: Any, tmp_path: Path) -> None:
    base = load_base(save(tmp_path / "base"))
    layers = {
        name: module
        for name, module in base.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    plain_cache, plain_hidden = states(base)
    found = dict.fromkeys(layers, "cache")
    for name, module in layers.items():
        handle = module.register_forward_hook(lambda _m, _a, output: output + output.cos())
        cache, hidden = states(base)
        handle.remove()
        if all(torch.equal(a, b) for a, b in zip(cache, plain_cache, strict=True)):
            found[name] = "head" if torch.equal(hidden, plain_hidden) else "last"
    assert set(found.values()) == {"head", "last", "cache"}
    assert reach_of(base.model, layers) == found


def test_a_layer_of_an_unknown_name_is_taken_to_reach_the_cache(tmp_path: Path) -> None:
    base = load_base(save_tiny_llama(tmp_path / "base"))
    assert reach_of(base.model, ["model.layers.1.self_attn.kv_b_proj"]) == {
        "model.layers.1.self_attn.kv_b_proj": "cache"
    }


class Gate(nn.Linear):
    """As PhiMoE's router: a linear layer by its base, which returns something else."""


@pytest.mark.parametrize(
    ("layer", "module", "is_one"),
    [
        ("model.layers.0.mlp.up_proj", nn.Linear(2, 2), True),
        ("transformer.h.0.mlp.c_fc", Conv1D(2, 2), True),
        ("model.layers.0.mlp.gate", Gate(2, 2), False),
        ("model.layers.0.mlp.router.layer", nn.Linear(2, 2), False),
        ("model.layers.0.mlp.experts.3.up_proj", nn.Linear(2, 2), False),
        ("model.layers.0.norm", nn.LayerNorm(2), False),
    ],
)
def test_only_plain_layers_that_every_token_passes_are_adapted(
    layer: str, module: nn.Module, is_one: bool
) -> None:
    assert is_adaptable(layer, module) is is_one
