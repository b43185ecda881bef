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

from collections.abc import Callable, Sequence
from time import perf_counter, thread_time
from typing import Any, Literal

import numpy as np
import torch
import typer
from pydantic import Field
from rich.console import Console
from rich.table import Table

from palate import Library, SamplingParams
from palate.core.errors import CheckFailedError
from palate.core.files import dump_json
from palate.core.settings import Settings, load_settings
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
    clock: Literal["wall", "thread"] = "wall"  # seconds of the thread, where a core is shared
    seed: int = 0


def bench_generate(settings: GenerateBenchSettings) -> dict[str, Any]:
    """Check the gate, then race; plain data.

    Raises:
        CheckFailedError: a greedy token differs from transformers' in float32.
    """
    library = Library.load(settings.library, dtype=settings.dtype)
    is_exact = settings.dtype == "float32"
    _require_same_tokens(library if is_exact else Library.load(settings.library, dtype="float32"))
    names = library.manifest.expert_names
    share = library.strength / max(len(names), 1)
    knowns: dict[str, dict[str, Any]] = {"palate": {"method": "base"}}
    if names:
        knowns["palate, soup"] = {"method": "soup", "coefficients": dict.fromkeys(names, share)}
    result: dict[str, Any] = {"settings": settings.model_dump(), "speeds": {}}
    plain = _as_its_users_have_it(library)
    parameters = list(plain.parameters())
    n_bytes = sum(p.numel() * p.element_size() for p in parameters)
    result["floor"] = {
        "bytes": n_bytes,
        "bytes_per_second": (rate := _stream_rate()),
        "tokens_per_second_of_one": rate / n_bytes,
    }
    for n in settings.n_sequences:
        prompts = [PROMPTS[k % len(PROMPTS)] for k in range(n)]
        contestants: dict[str, Callable[[int], int]] = {
            name: _ours(library, known, prompts, settings) for name, known in knowns.items()
        }
        contestants["transformers"] = _theirs(library, plain, prompts, settings)
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        now = perf_counter if settings.clock == "wall" else thread_time
        for repeat in range(settings.n_repeats + 1):
            for name, contestant in contestants.items():
                start = now()
                n_tokens = contestant(settings.seed + repeat)
                if repeat:  # the first warms up
                    rates[name].append(n_tokens / (now() - start))
        result["speeds"][n] = {
            name: {"maximum": max(own), "median": float(np.median(own))}
            for name, own in rates.items()
        }
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


def _as_its_users_have_it(library: Library) -> Any:
    """The base without what the engine prepares."""
    model = library.base.model
    return (
        type(model)
        .from_pretrained(
            model.name_or_path, dtype=model.dtype, use_safetensors=True, trust_remote_code=False
        )
        .eval()
    )


def _require_same_tokens(library: Library) -> None:
    greedy = SamplingParams(temperature=0.0, max_tokens=GREEDY_TOKENS)
    output: Any = library.generate(PROMPTS[0], method="base", sampling=greedy)
    own = output.completion.tokens
    inputs = _read(library, PROMPTS[:1])
    answer = _generate(
        _as_its_users_have_it(library),
        inputs,
        pad=library.base.tokenizer.pad_token_id,
        n_tokens=GREEDY_TOKENS,
        do_sample=False,
    )
    theirs = answer[0, inputs["input_ids"].shape[1] :].tolist()
    if list(own) != theirs[: len(own)]:
        raise CheckFailedError(
            f"In float32 the engine's greedy tokens {list(own)} are not transformers' {theirs}; "
            "speeds of different answers say nothing."
        )


def _read(library: Library, prompts: Sequence[str]) -> Any:
    """Prompts as transformers takes them, padded on the left."""
    texts = [library.format(prompt) for prompt in prompts]
    options: dict[str, Any] = {"padding": True, "padding_side": "left"}
    return library.base.tokenizer(texts, return_tensors="pt", add_special_tokens=False, **options)


def _ours(
    library: Library, known: dict[str, Any], prompts: list[str], settings: GenerateBenchSettings
) -> Callable[[int], int]:
    sampling = SamplingParams(temperature=settings.temperature, max_tokens=settings.max_tokens)

    def answer(seed: int) -> int:
        outputs: Any = library.generate(prompts, sampling=sampling, seed=seed, **known)
        return sum(len(output.completion.tokens) for output in outputs)

    return answer


def _theirs(
    library: Library, plain: Any, prompts: list[str], settings: GenerateBenchSettings
) -> Callable[[int], int]:
    base, inputs = library.base, _read(library, prompts)
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
