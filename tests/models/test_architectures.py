"""Tiny random models of many families: exact against transformers, or refused with a sentence.

The other side is one text at a time, whole, without padding and without a cache. Texts are longer
than the sliding windows, and those of a batch are of unlike lengths.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from fakes import byte_tokenizer, save_random_adapter
from palate.core.errors import FormatError
from palate.core.plan import member_plan, output_soup_plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, answer_log_probs
from palate.engine.prefill import PrefillSettings
from palate.library.library import Library
from palate.models.load import Base, load_base

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = SHAPE | {"num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
WINDOW = 7  # shorter than the texts
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
SERVED: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "llama": ("llama", GROUPED, (*ATTENTION, "down_proj", "lm_head")),
    "qwen3": ("qwen3", GROUPED, (*ATTENTION, "up_proj")),
    "mistral": ("mistral", GROUPED | {"sliding_window": WINDOW}, (*ATTENTION, "gate_proj")),
    "gemma2": ("gemma2", GROUPED | {"sliding_window": WINDOW}, ATTENTION),
    "gemma3": (
        "gemma3_text",
        GROUPED | {"sliding_window": WINDOW, "num_hidden_layers": 3, "sliding_window_pattern": 2},
        (*ATTENTION, "down_proj"),
    ),
    "gpt2": (
        "gpt2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.3}
        | {key: SHAPE[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
        ("c_attn", "c_proj", "c_fc"),
    ),
    "gpt-neox": ("gpt_neox", SHAPE, ("query_key_value", "dense", "dense_4h_to_h")),
    "phi3": ("phi3", SHAPE | {"num_key_value_heads": 2}, ("qkv_proj", "o_proj", "gate_up_proj")),
    "olmo2": ("olmo2", SHAPE | {"num_key_value_heads": 2}, (*ATTENTION, "up_proj")),
    "mixtral": ("mixtral", GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}, ATTENTION),
    "qwen3-moe": ("qwen3_moe", GROUPED | EXPERTS | {"num_experts": 4}, ATTENTION),
    "bloom": ("bloom", {**SHAPE, "n_layer": 2, "n_head": 4}, ("query_key_value", "dense")),
}
REFUSED = {
    "mamba": SHAPE | {"state_size": 4},
    "bert": SHAPE,
    "recurrent_gemma": SHAPE | {"num_hidden_layers": 3, "lru_width": 32, "num_key_value_heads": 1},
}
PROMPTS = ("a b c d e f g h i j", "b", "the old harbour")
ANSWERS = ("x y z", "a long answer, longer than the window", "z")


def save(folder: Path, kind: str, settings: dict[str, Any]) -> Path:
    tokenizer = byte_tokenizer()
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **settings)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ids_of(base: Base, text: str) -> tuple[int, ...]:
    return tuple(base.tokenizer(text)["input_ids"])


@torch.no_grad()
def wanted_log_probs(model: Any, context: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    logits = model(torch.tensor([context + answer]), use_cache=False).logits[0]
    log_probs = logits[len(context) - 1 : -1].log_softmax(-1)
    return log_probs.gather(1, torch.tensor(answer).unsqueeze(1)).squeeze(1)


@torch.no_grad()
def wanted_greedy(model: Any, context: tuple[int, ...], n_tokens: int) -> tuple[int, ...]:
    tokens: list[int] = []
    while len(tokens) < n_tokens and tokens[-1:] != [2]:
        ids = torch.tensor([[*context, *tokens]])
        tokens.append(int(model(ids, use_cache=False).logits[0, -1].argmax()))
    return tuple(tokens)


@pytest.fixture(scope="module", params=SERVED)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    kind, settings, targets = SERVED[request.param]
    root = tmp_path_factory.mktemp(request.param)
    folder = save(root / "base", kind, settings)
    options = {"fan_in_fan_out": True} if kind == "gpt2" else {}  # its layers are `Conv1D`
    adapter = save_random_adapter(folder, root / "adapter", seed=1, targets=targets, **options)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    return folder, adapter, plain


def test_a_library_of_the_base_scores_and_answers_as_transformers(family) -> None:
    folder, _, plain = family
    library = Library.load(folder)
    contexts = [ids_of(library.base, prompt) for prompt in PROMPTS]
    for prompt, context, answer in zip(PROMPTS, contexts, ANSWERS, strict=True):
        given = library.score(prompt, answer, is_ended=False).log_probs
        wanted = wanted_log_probs(plain, context, ids_of(library.base, answer))
        assert given == pytest.approx(wanted.tolist(), abs=1e-4)
    sampling = SamplingParams(temperature=0.0, max_tokens=14)
    outputs = library.generate(list(PROMPTS), sampling=sampling)
    for output, context in zip(outputs, contexts, strict=True):
        assert output.completion.tokens == wanted_greedy(plain, context, 14)


def test_experts_padding_and_the_prefix_cache_change_nothing_else(family) -> None:
    folder, adapter, plain = family
    base = load_base(folder)
    bank = AdapterBank.load(base, {"expert": adapter})
    adapted = PeftModel.from_pretrained(plain, adapter).eval()
    contexts = [ids_of(base, prompt) for prompt in PROMPTS]
    answers = [ids_of(base, answer) for answer in ANSWERS]
    plan = member_plan(index=0, n_experts=1)
    items = [Scored(c, a) for c, a in zip(contexts, answers, strict=True)]
    together = answer_log_probs(base, bank, plans=[plan] * 3, items=items)
    for given, item in zip(together, items, strict=True):
        wanted = wanted_log_probs(adapted, item.context, item.answer)
        assert given.tolist() == pytest.approx(wanted.tolist(), abs=1e-4)
    settings = PrefillSettings(max_prefix_tokens=4096, prefill_chunk_tokens=8)
    engine = LocalEngine(base, bank, prefill=settings)
    sampling = SamplingParams(temperature=0.0, max_tokens=8)
    plans = [plan, reference_plan(n_experts=1), output_soup_plan((0.5,))]
    text = "a conversation that is longer than one block of the cache"
    for prompt in (text, f"{text} and goes on", f"{text} and ends"):
        requests = [Request(prompt, each, sampling) for each in plans]
        requests += [Request("b", plan, sampling)]
        tokens = [answer.tokens for answer in engine.generate(requests)]
        assert tokens[0] == wanted_greedy(adapted, ids_of(base, prompt), 8)
        with adapted.disable_adapter():
            assert tokens[1] == wanted_greedy(adapted, ids_of(base, prompt), 8)
        assert tokens[3] == wanted_greedy(adapted, ids_of(base, "b"), 8)
    adapted.unload()
    bank.close()


def test_longrope_is_read_up_to_where_its_positions_change(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    settings = SHAPE | {"rope_parameters": rope, "original_max_position_embeddings": 64}
    base = load_base(save(tmp_path / "phi3", "phi3", settings))
    assert base.n_positions == 64


@pytest.mark.parametrize("kind", REFUSED)
def test_families_that_the_engine_cannot_batch_are_refused(kind: str, tmp_path: Path) -> None:
    folder = save(tmp_path / kind, kind, REFUSED[kind])
    with pytest.raises(FormatError, match="use a decoder of attention alone"):
        load_base(folder)
