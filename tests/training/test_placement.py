"""Which layers an expert adapts."""

import pytest

from fakes import save_tiny_gpt2
from palate.core.errors import InvalidInputError
from palate.models.load import load_base
from palate.training.placement import AdapterSettings, lora_config, target_modules


def test_all_means_attention_and_mlp_but_not_the_unembedding(tiny_base):
    found = target_modules(tiny_base.model, AdapterSettings())
    assert found == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip


def test_head_means_the_unembedding_alone(tiny_base):
    assert target_modules(tiny_base.model, AdapterSettings(placement="head")) == ["lm_head"]


def test_top_without_keys_means_the_last_blocks_but_keys_and_values(tiny_base):
    found = target_modules(tiny_base.model, AdapterSettings(placement="top_no_kv", n_top_blocks=1))
    assert found == [
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.o_proj",
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
    ]


def test_a_base_with_fused_keys_cannot_leave_them_alone(tmp_path):
    base = load_base(save_tiny_gpt2(tmp_path / "gpt2"))
    assert "c_attn" in target_modules(base.model, AdapterSettings())
    with pytest.raises(InvalidInputError, match="c_attn"):
        target_modules(base.model, AdapterSettings(placement="top_no_kv"))


def test_the_settings_reach_peft(tiny_base):
    settings = AdapterSettings(rank=3, lora_alpha=6, is_rslora=True)
    config = lora_config(tiny_base.model, settings)
    assert (config.r, config.lora_alpha, config.use_rslora, config.lora_dropout) == (3, 6, True, 0)
