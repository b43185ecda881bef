"""Parameters, adapters and caches, counted by hand and against transformers' own models."""

from dataclasses import replace

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, Qwen3Config
from transformers.models.llama import LlamaForCausalLM
from transformers.models.qwen3 import Qwen3ForCausalLM

from palate.core.errors import InvalidInputError
from palate.training.placement import AdapterSettings, lora_config
from research.serving.model_sizes import (
    SHAPES,
    Device,
    Load,
    ModelShape,
    Placement,
    capacity_of,
    device_of,
    shape_of,
    training_bytes,
)
from research.serving.plan_of_run import PLACEMENTS

SMALL = ModelShape(8, 12, 3, 4, 2, 5, 20, is_tied=False)


def as_model(shape: ModelShape) -> torch.nn.Module:
    """The same decoder as transformers builds it, without memory."""
    kinds = {False: (LlamaConfig, LlamaForCausalLM), True: (Qwen3Config, Qwen3ForCausalLM)}
    config, model = kinds[shape.has_head_norms]
    with torch.device("meta"):
        return model(
            config(
                hidden_size=shape.hidden,
                intermediate_size=shape.intermediate,
                num_hidden_layers=shape.n_layers,
                num_attention_heads=shape.n_heads,
                num_key_value_heads=shape.n_kv_heads,
                head_dim=shape.head_dim,
                vocab_size=shape.vocab,
                tie_word_embeddings=shape.is_tied,
            )
        )


def test_sizes_of_a_small_decoder_are_those_counted_by_hand() -> None:
    # a block: q 8x20, k and v 8x10 each, o 20x8, gate and up 8x12 each, down 12x8, two norms of 8
    block = 160 + 2 * 80 + 160 + 2 * 96 + 96 + 16
    assert SMALL.n_parameters == 3 * block + 8 + 2 * 20 * 8
    # keys and values of 3 layers, 2 heads of width 5
    assert SMALL.cache_numbers() == 2 * 3 * 2 * 5 == 60
    # rank 2: q and o 8+20 each, k and v 8+10 each, the MLP's three 8+12 each
    assert SMALL.adapter_parameters(rank=2) == 3 * 2 * (28 + 28 + 18 + 18 + 20 + 20 + 20)
    assert SMALL.adapter_parameters(rank=2, placement="head") == 2 * (8 + 20)
    top = SMALL.adapter_parameters(rank=2, placement="top_no_kv", n_top_blocks=1)
    assert top == 2 * (28 + 28 + 20 + 20 + 20)


@pytest.mark.parametrize("name", SHAPES)
def test_listed_models_have_the_parameters_that_transformers_counts(name: str) -> None:
    model = as_model(shape_of(name))
    assert shape_of(name).n_parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("smollm2-135m", 134_515_008),
        ("smollm2-1.7b", 1_711_376_384),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.1-8b", 8_030_261_248),
        ("qwen3-8b", 8_190_735_360),
    ],
)
def test_listed_models_have_the_parameters_that_their_makers_publish(
    name: str, published: int
) -> None:
    assert shape_of(name).n_parameters == published


TARGETS = {placement: modules for modules, placement in PLACEMENTS.items()}


@pytest.mark.parametrize("placement", ["all", "head", "top_no_kv"])
def test_an_adapter_has_the_parameters_that_peft_makes(placement: Placement) -> None:
    shape = replace(SMALL, head_dim=6)  # transformers wants it even
    model = as_model(shape)
    settings = AdapterSettings(r=3, target_modules=TARGETS[placement], n_top_blocks=2)
    with torch.device("meta"):
        adapted = get_peft_model(model, lora_config(model, settings))  # type: ignore[arg-type]
    n = sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)
    assert shape.adapter_parameters(rank=3, placement=placement, n_top_blocks=2) == n


def test_the_known_cache_of_an_8b_llama() -> None:
    # 2 * 32 layers * 8 heads * 128 numbers of two bytes: 131,072 bytes a token
    assert shape_of("llama-3.1-8b").cache_numbers() * 2 == 131_072
    # a mixture of 8 experts keeps eight caches, one on the head alone keeps one
    many = Load(shape_of("llama-3.1-8b"), 2, 8, 16, "all", 8, False, 1000, 24)
    assert many.cache_bytes == 8 * 1024 * 131_072
    shared = Load(shape_of("llama-3.1-8b"), 2, 8, 16, "head", 8, True, 1000, 24)
    assert shared.cache_bytes == 1024 * 131_072


def test_capacity_is_the_longer_of_reading_and_arithmetic() -> None:
    # base 2 * 2,680 = ... bytes: numbers below are by hand for the small decoder, two bytes each
    load = Load(SMALL, 2, 1, 2, "head", 1, False, 6, 4)
    assert load.model_bytes == 2 * SMALL.n_parameters == 5360
    assert load.bank_bytes == 2 * 56
    assert load.cache_bytes == 10 * 60 * 2
    # room of 0.9 * 20,000 - 5,360 - 112 = 12,528 bytes: ten answers of 1,200
    slow_memory = Device(20_000, 1_000, 1e12)
    found = capacity_of(load, slow_memory, efficiency=1.0, max_together=64)
    assert found.answers_together == 10
    # caches are read at 6 + 2 of their 10 tokens: 960 bytes each
    assert found.step_seconds == pytest.approx((5360 + 112 + 10 * 960) / 1_000)
    assert found.answers_per_second == pytest.approx(10 / (4 * found.step_seconds), rel=1e-6)
    # arithmetic alone: 2 * (2,680 - 160 + 56) operations a row
    slow_units = Device(20_000, 1e12, 1_000)
    found = capacity_of(load, slow_units, efficiency=0.5, max_together=4)
    assert found.answers_together == 4
    per_token = 2 * (2680 - 160 + 56) / 500
    assert found.step_seconds == pytest.approx(4 * per_token)
    assert found.answers_per_second == pytest.approx(4 / (4 * 4 * per_token + 4 * 6 * per_token))


def test_training_memory_is_that_counted_by_hand() -> None:
    found = training_bytes(SMALL, adapter_parameters=56, tokens=10, completion_tokens=4)
    assert found["bases"] == 2 * 2680 * 2
    assert found["adapter"] == 56 * 16
    # a token and block: 4 * 8 numbers of 2 and of 4 bytes, 2 * 20 + 2 * 10 + 4 * 12 of two bytes
    assert found["activations"] == 10 * 3 * (32 * 2 + 32 * 4 + (40 + 20 + 48) * 2)
    # logits of 10 tokens in two bytes, and of 4 twice in four
    assert found["logits"] == 20 * (10 * 2 + 4 * 8)


def test_what_does_not_fit_or_is_not_listed_is_told() -> None:
    load = Load(shape_of("llama-3.3-70b"), 2, 8, 16, "all", 1, False, 1024, 256)
    with pytest.raises(InvalidInputError, match=r"need 14\d\.\d GB"):
        capacity_of(load, device_of("h200"), efficiency=0.5, max_together=8)
    with pytest.raises(InvalidInputError, match="listed are smollm2-135m"):
        shape_of("gpt-9")
    with pytest.raises(InvalidInputError, match="listed are h200"):
        device_of("abacus")
