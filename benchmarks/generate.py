"""Sampled tokens a second on a real base, against `transformers.generate`, and the floor beneath.

The same prompts are answered at the same temperature by

    palate          the engine, without experts
    palate, soup    the engine, one soup of all of a library's experts for every prompt
    transformers    the base's own `generate`, a padded batch

each with 1, 8 and 32 sequences at a time. All end where the model ends an answer or at the most
tokens, so tokens count, not answers. The floor of a step is the time in which the base's parameters
are read once from memory, at the rate of adding them up; no step of an uncompressed base is faster.

The gate: in float32 the engine's greedy answer is that of transformers, token by token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
import typer
from pydantic import Field
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

from palate.core.errors import CheckFailedError
from palate.core.files import dump_json
from palate.core.plan import Plan, parameter_soup_plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.settings import Settings, load_settings
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.library.library import Library
from palate.models.chat import encode_prompt, format_messages
from palate.models.embedded import SAFE_WEIGHTS, resolve_base
from palate.models.load import Base, load_base
from research.command_line import IsJson, Overrides, run

PROMPTS = (
    "Explain how a bicycle stays upright.",
    "Write a story about a lighthouse keeper and a whale.",
    "Describe the history of bread in a few paragraphs.",
    "How do I prepare for a job interview?",
)
GREEDY_TOKENS = 24
STREAM_BYTES = 2**28  # read again and again to measure memory


class GenerateBenchSettings(Settings):
    """What is raced."""

    library: str = "smollm2-135m"
    dtype: str = "bfloat16"
    n_sequences: list[int] = Field(default=[1, 8, 32], min_length=1)
    max_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.7, gt=0)
    n_repeats: int = Field(default=5, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class Speed:
    """Tokens a second of one contestant: the fastest repeat, and the middle one."""

    maximum: float
    median: float

    @classmethod
    def of(cls, rates: list[float]) -> "Speed":
        """Of its repeats."""
        return cls(max(rates), float(np.median(rates)))


def bench_generate(settings: GenerateBenchSettings) -> dict[str, Any]:
    """Check the gate, then race; plain data.

    Raises:
        CheckFailedError: a greedy token differs from transformers' in float32.
    """
    library = Library.load(settings.library, dtype=settings.dtype)
    base, engine = library.base, LocalEngine(library.base, library.bank)
    n_experts = len(library.bank.names)
    _require_same_tokens(base if settings.dtype == "float32" else load_base(base.path))
    plans = {"palate": reference_plan(n_experts=n_experts)}
    if n_experts:
        plans["palate, soup"] = parameter_soup_plan((library.strength / n_experts,) * n_experts)
    result: dict[str, Any] = {"settings": settings.model_dump(), "speeds": {}}
    plain = AutoModelForCausalLM.from_pretrained(
        resolve_base(base.path), dtype=base.model.dtype, **SAFE_WEIGHTS
    ).eval()  # as its users have it: the engine's is prepared for it
    n_bytes = sum(p.numel() * p.element_size() for p in base.model.parameters())
    result["floor"] = {
        "bytes": n_bytes,
        "bytes_per_second": (rate := _stream_rate()),
        "tokens_per_second_of_one": rate / n_bytes,
    }
    for n in settings.n_sequences:
        prompts = [PROMPTS[k % len(PROMPTS)] for k in range(n)]
        contestants: dict[str, Callable[[int], int]] = {
            name: _ours(engine, plan, prompts, settings) for name, plan in plans.items()
        }
        contestants["transformers"] = _theirs(base, plain, prompts, settings)
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        for repeat in range(settings.n_repeats + 1):
            for name, contestant in contestants.items():
                start = perf_counter()
                n_tokens = contestant(settings.seed + repeat)
                if repeat:  # the first warms up
                    rates[name].append(n_tokens / (perf_counter() - start))
        result["speeds"][n] = {name: vars(Speed.of(own)) for name, own in rates.items()}
    return result


def _stream_rate() -> float:
    """Bytes a second at which memory is read by all threads."""
    block = torch.ones(STREAM_BYTES // 4)
    seconds = []
    for _ in range(5):
        start = perf_counter()
        block.sum()
        seconds.append(perf_counter() - start)
    return STREAM_BYTES / min(seconds)


def _require_same_tokens(base: Base) -> None:
    bank = AdapterBank(base, {})
    text = format_messages(base, PROMPTS[0])
    greedy = SamplingParams(temperature=0.0, max_tokens=GREEDY_TOKENS)
    (own,) = LocalEngine(base, bank).generate([Request(text, reference_plan(n_experts=0), greedy)])
    bank.close()
    ids = torch.tensor([encode_prompt(base, text)])
    answer = _generate(
        base.model,
        {"input_ids": ids},
        pad=base.tokenizer.pad_token_id,
        n_tokens=GREEDY_TOKENS,
        do_sample=False,
    )
    theirs = answer[0, ids.shape[1] :].tolist()
    if list(own.tokens) != theirs[: len(own.tokens)]:
        raise CheckFailedError(
            f"In float32 the engine's greedy tokens {list(own.tokens)} are not transformers' "
            f"{theirs}; speeds of different answers say nothing."
        )


def _ours(
    engine: LocalEngine, plan: Plan, prompts: list[str], settings: GenerateBenchSettings
) -> Callable[[int], int]:
    sampling = SamplingParams(temperature=settings.temperature, max_tokens=settings.max_tokens)
    texts = [format_messages(engine.base, prompt) for prompt in prompts]

    def answer(seed: int) -> int:
        requests = [
            Request(text, plan, sampling, seed=len(texts) * seed + k)
            for k, text in enumerate(texts)
        ]
        return sum(len(completion.tokens) for completion in engine.generate(requests))

    return answer


def _theirs(
    base: Base, plain: Any, prompts: list[str], settings: GenerateBenchSettings
) -> Callable[[int], int]:
    texts = [format_messages(base, prompt) for prompt in prompts]
    options: dict[str, Any] = {"padding": True, "padding_side": "left", "add_special_tokens": False}
    inputs: Any = base.tokenizer(texts, return_tensors="pt", **options)
    n_before = inputs["input_ids"].shape[1]

    def answer(seed: int) -> int:
        torch.manual_seed(seed)
        output = _generate(
            plain,
            inputs,
            pad=base.tokenizer.pad_token_id,
            n_tokens=settings.max_tokens,
            do_sample=True,
            temperature=settings.temperature,
            top_k=0,
        )
        return sum(_length(row, base.stop_ids) for row in output[:, n_before:].tolist())

    return answer


def _generate(model: Any, inputs: Any, *, pad: Any, n_tokens: int, **options: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.generate(**inputs, max_new_tokens=n_tokens, pad_token_id=pad, **options)


def _length(tokens: list[int], stop_ids: frozenset[int]) -> int:
    """Tokens up to the first that ends an answer, and that one."""
    return next((k + 1 for k, token in enumerate(tokens) if token in stop_ids), len(tokens))


def _print(result: dict[str, Any]) -> None:
    console = Console()
    floor = result["floor"]
    console.print(
        f"{floor['bytes'] / 1e6:.0f} MB of parameters, memory {floor['bytes_per_second'] / 1e9:.1f}"
        f" GB/s: at most {floor['tokens_per_second_of_one']:.0f} tokens/s of one uncompressed "
        "sequence"
    )
    table = Table(
        "sequences", "contestant", "tokens/s, best", "median", "transformers is slower by"
    )
    for n, speeds in result["speeds"].items():
        theirs = speeds["transformers"]["median"]
        for name, speed in speeds.items():
            ratio = f"{speed['median'] / theirs:.2f}x"
            table.add_row(str(n), name, f"{speed['maximum']:.0f}", f"{speed['median']:.0f}", ratio)
    console.print(table)


def main(*, is_json: IsJson = False, overrides: Overrides = None) -> None:
    """Race the engine against `transformers.generate` on a real base."""
    result = bench_generate(load_settings(GenerateBenchSettings, overrides=overrides or ()))
    if is_json:
        typer.echo(dump_json(result))
    else:
        _print(result)


if __name__ == "__main__":
    run(main)
