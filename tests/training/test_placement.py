"""Which layers an expert adapts."""

import pytest

from fakes import save_tiny_gpt2
from palate.core.errors import InvalidInputError
from palate.models.load import load_base
from palate.training.placement import AdapterSettings, lora_config, target_modules


def test_all_means_attention_and_mlp_but_not_the_unembedding(tiny_base):
    found = target_modules(tiny_base.model, AdapterSettings())
    assert len(found) == 2 * 7
    assert {name.rpartition(".")[2] for name in found} == {
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    }  # fmt: skip


def test_head_means_the_unembedding_alone(tiny_base):
    assert target_modules(tiny_base.model, AdapterSettings(target_modules="lm_head")) == ["lm_head"]


def test_top_without_keys_means_the_last_blocks_but_keys_and_values(tiny_base):
    found = target_modules(
        tiny_base.model, AdapterSettings(target_modules="top_no_kv", n_top_blocks=1)
    )
    assert found == [
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.o_proj",
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
    ]


def test_a_base_with_fused_keys_cannot_leave_them_alone(tmp_path):
    base = load_base(save_tiny_gpt2(tmp_path / "gpt2"))
    assert "transformer.h.0.attn.c_attn" in target_modules(base.model, AdapterSettings())
    with pytest.raises(InvalidInputError, match="c_attn"):
        target_modules(base.model, AdapterSettings(target_modules="top_no_kv"))


def test_the_settings_reach_peft(tiny_base):
    settings = AdapterSettings(r=3, lora_alpha=6, use_rslora=True)
    config = lora_config(tiny_base.model, settings)
    assert (config.r, config.lora_alpha, config.use_rslora, config.lora_dropout) == (3, 6, True, 0)


def test_a_list_of_names_is_adapted_as_it_is(tiny_base):
    settings = AdapterSettings(target_modules=("q_proj", "lm_head"))
    assert target_modules(tiny_base.model, settings) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "lm_head",
    ]
    assert settings.adapts_head
    assert not AdapterSettings().adapts_head
    with pytest.raises(InvalidInputError, match="no linear layer 'wide', which target_modules"):
        target_modules(tiny_base.model, AdapterSettings(target_modules=("wide",)))
