"""The accelerator's lines of the performance goals, or the same at toy size.

One decode step on random parameters, after a context: many users' rows on the bank against the
base with as many rows; all experts as rows of one user with their pool against the base with one
row; experts on the head alone, which share one pass and one cache; and the state of ten thousand
users. Without a GPU the same code runs on the CPU at toy size, in float32, and the result says so:
such ratios are no evidence about a GPU.

The gate is at toy size in float32 on the same device: the bank's logits against a dense
`W + sum_k c_k s_k B_k A_k`, for experts in all blocks and for experts on the head in one sequence.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import typer
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field
from rich.console import Console
from torch import Tensor

from benchmarks.peers import TARGETS, Cache, LlamaSize, random_adapters, random_base
from benchmarks.show import print_gate
from benchmarks.timing import Timing, race
from palate.core.errors import CheckFailedError, InvalidInputError
from palate.core.files import dump_json
from palate.core.settings import Settings, load_settings
from palate.engine.bank import AdapterBank
from palate.engine.pool import RowMap, pool_log_probs
from palate.models.adapter import Factor
from palate.models.load import Base
from research.command_line import IsJson, Overrides, run
from research.mixture.plans import mixture_plan

GATE = 1e-4  # largest difference of logits to the dense model, float32
HEAD = ("lm_head",)
SIZES = {
    "toy": LlamaSize(hidden=128, intermediate=344, n_layers=4, vocab=512),
    "1b": LlamaSize(hidden=2048, intermediate=8192, n_layers=16, vocab=128256),
    "8b": LlamaSize(hidden=4096, intermediate=14336, n_layers=32, vocab=128256),
}
SOUP_TARGET = 1.10  # a step of B <= 64 users over the base's
MIXTURE_TARGET = 1.25  # a step of K experts for one user over the base's
HEAD_TARGET = 1.10  # the same of experts that share a pass


class GpuBenchSettings(Settings):
    """Sizes of the race.

    Attributes:
        size: `auto` is 1b on a GPU and toy without.
        users: Batch sizes.
        n_experts: In the bank.
        rank: Of each.
        context_tokens: Read before the step.
        n_users_state: Users whose coefficients are kept at once.
        n_repeats: Of every timing.
        seed: Of the parameters.
    """

    size: Literal["auto", "toy", "1b", "8b"] = "auto"
    users: tuple[int, ...] = (1, 8, 64)
    n_experts: int = Field(default=8, ge=1)
    rank: int = Field(default=16, ge=1)
    context_tokens: int = Field(default=128, ge=1)
    n_users_state: int = Field(default=10_000, ge=1)
    n_repeats: int = Field(default=15, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class GpuBench:
    """What was measured.

    Attributes:
        settings: As resolved.
        device: What it ran on, in words.
        is_gpu: Whether that is an accelerator.
        largest_difference: The gate's.
        timings: Seconds of a decode step, by contestant.
        state_bytes: Of all users' coefficients.
        not_measured: Goals that this command does not measure, with the reason.
    """

    settings: GpuBenchSettings
    device: str
    is_gpu: bool
    largest_difference: float
    timings: dict[str, Timing]
    state_bytes: int
    not_measured: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data: where, gate, seconds, ratios and targets."""
        soups = {
            n: self.timings[f"bank, {n} users"].ratio_to(self.timings[f"base, {n} rows"])
            for n in self.settings.users
        }
        mixture = self.timings["mixture, 1 user"].ratio_to(self.timings["base, 1 row"])
        heads = self.timings["head experts, 1 user"].ratio_to(self.timings["base, 1 row"])
        note = "" if self.is_gpu else "no GPU: toy size on the CPU, no evidence about one"
        return {
            "settings": self.settings.model_dump(),
            "device": self.device,
            "note": note,
            "gate": {"largest_difference": self.largest_difference, "limit": GATE},
            "median_seconds": {name: t.median_seconds for name, t in self.timings.items()},
            "minimum_seconds": {name: t.minimum_seconds for name, t in self.timings.items()},
            "soup_step_over_base": {str(n): ratio for n, ratio in soups.items()},
            "soup_target": SOUP_TARGET,
            "mixture_step_over_base": mixture,
            "mixture_target": MIXTURE_TARGET,
            "head_experts_step_over_base": heads,
            "head_experts_target": HEAD_TARGET,
            "users_state_bytes": self.state_bytes,
            "not_measured": list(self.not_measured),
        }


def bench_gpu(settings: GpuBenchSettings) -> GpuBench:
    """Check the gate, then race on the GPU if there is one.

    Raises:
        CheckFailedError: the bank's logits differ from the dense model's by more than the gate.
        InvalidInputError: a size for GPUs is asked for without one.
    """
    is_gpu = torch.cuda.is_available()
    if not is_gpu and settings.size in ("1b", "8b"):
        raise InvalidInputError(
            f"The size {settings.size} needs a GPU, and torch finds none; leave size out for the "
            "toy one."
        )
    device, dtype = ("cuda", torch.bfloat16) if is_gpu else ("cpu", torch.float32)
    size = settings.size if settings.size != "auto" else ("1b" if is_gpu else "toy")
    settings = settings.model_copy(update={"size": size})
    gap = max(
        _gate(settings, device=device, targets=targets, n_sequences=n_sequences)
        for targets, n_sequences in ((TARGETS, 4), (HEAD, 1))
    )
    if gap > GATE:
        raise CheckFailedError(f"The bank's logits differ from the dense model's by {gap:.2e}.")
    base = random_base(SIZES[size], seed=settings.seed, device=device, dtype=dtype)
    bank = AdapterBank(base, _adapters(base, settings, targets=TARGETS))
    users = np.random.default_rng(settings.seed).normal(
        size=(settings.n_users_state, settings.n_experts)
    )
    with torch.inference_mode():
        timings = race(_steps(base, bank, users, settings), n_repeats=settings.n_repeats)
    name = torch.cuda.get_device_name() if is_gpu else "CPU, one core"
    return GpuBench(
        settings=settings,
        device=f"{name}, {str(dtype).removeprefix('torch.')}, {size}",
        is_gpu=is_gpu,
        largest_difference=gap,
        timings=timings,
        state_bytes=users.nbytes,
        not_measured=("serving: python -m benchmarks.serve",),
    )


class _Racer:
    """Makes contestants: each reads a context once, then takes one decode step when called."""

    def __init__(self, base: Base, users: Float[ndarray, "users experts"], seed: int) -> None:
        self._base, self._users = base, users
        self._drawn = np.random.default_rng(seed)

    def step(
        self,
        tokens: Tensor,
        applied: Callable[[], AbstractContextManager[None]] = nullcontext,
        pool: RowMap | None = None,
    ) -> Callable[[], object]:
        """A step of the rows in `tokens`, with coefficients that are put in force at every step."""
        model, cache = self._base.model, Cache()
        model(tokens, past_key_values=cache)

        def run() -> None:
            with applied():
                logits = model(tokens[:, -1:], past_key_values=cache).logits[:, -1]
            if pool is not None:
                pool_log_probs(logits, pool)
            cache.crop(-1)
            if tokens.device.type == "cuda":
                torch.cuda.synchronize()

        return run

    def some(self, n: int) -> Tensor:
        """Coefficients of `n` users, others at every call."""
        return torch.tensor(self._users[self._drawn.integers(len(self._users), size=n)])


def _steps(
    base: Base,
    bank: AdapterBank,
    users: Float[ndarray, "users experts"],
    settings: GpuBenchSettings,
) -> dict[str, Callable[[], object]]:
    """One decode step of every contestant; users of a batch are others at every step."""
    n_experts, config = settings.n_experts, base.model.config
    shape = (max(*settings.users, n_experts), settings.context_tokens)
    generator = torch.Generator().manual_seed(settings.seed)
    vocab = int(getattr(config, "vocab_size", 0))
    tokens = torch.randint(1, vocab, shape, generator=generator).to(base.device)
    racer = _Racer(base, users, settings.seed + 1)
    result: dict[str, Callable[[], object]] = {}
    for n in settings.users:
        result[f"base, {n} rows"] = racer.step(tokens[:n])
        result[f"bank, {n} users"] = racer.step(tokens[:n], lambda n=n: bank.applied(racer.some(n)))
    plan = mixture_plan(experts=range(n_experts), n_experts=n_experts)
    pool, each = RowMap.of([plan], device=base.device), torch.eye(n_experts)
    result["base, 1 row"] = racer.step(tokens[:1])
    result["mixture, 1 user"] = racer.step(
        tokens[:1].expand(n_experts, -1), lambda: bank.applied(each), pool
    )
    heads = AdapterBank(base, _adapters(base, settings, targets=HEAD))
    result["head experts, 1 user"] = racer.step(
        tokens[:1], lambda: heads.applied(each, sequences=[0] * n_experts), pool
    )
    return result


def _adapters(
    base: Base, settings: GpuBenchSettings, *, targets: Sequence[str]
) -> dict[str, dict[str, Factor]]:
    return random_adapters(
        base,
        n_experts=settings.n_experts,
        rank=settings.rank,
        seed=settings.seed,
        targets=targets,
    )


@torch.inference_mode()
def _gate(
    settings: GpuBenchSettings, *, device: str, targets: Sequence[str], n_sequences: int
) -> float:
    """Largest difference of logits between four rows that share sequences and dense models."""
    base = random_base(SIZES["toy"], seed=settings.seed, device=device)
    adapters = _adapters(base, settings, targets=targets)
    generator = torch.Generator().manual_seed(settings.seed)
    rows = torch.randn(4, settings.n_experts, generator=generator)
    ids = torch.randint(1, SIZES["toy"].vocab, (n_sequences, 16), generator=generator).to(device)
    sequences = [row % n_sequences for row in range(len(rows))]
    dense = [copy.deepcopy(base.model) for _ in rows]
    for model, row in zip(dense, rows.tolist(), strict=True):
        layers = dict(model.named_modules())
        for coefficient, adapter in zip(row, adapters.values(), strict=True):
            for name, factor in adapter.items():
                change = coefficient * factor.scale * (factor.up @ factor.down)
                layer: Any = layers[name]
                layer.weight = torch.nn.Parameter(layer.weight + change.to(device))  # not if tied
    bank = AdapterBank(base, adapters)
    with bank.applied(rows, sequences=None if n_sequences == len(rows) else sequences):
        result = base.model(ids).logits
    gaps = [
        (model(ids[sequence : sequence + 1]).logits[0] - said).abs().max()
        for model, sequence, said in zip(dense, sequences, result, strict=True)
    ]
    return float(torch.stack(gaps).max())


def main(*, overrides: Overrides = None, is_json: IsJson = False) -> None:
    """Decode steps of many users and of all experts on a GPU; at toy size where there is none."""
    result = bench_gpu(load_settings(GpuBenchSettings, overrides=overrides or ())).to_json()
    if is_json:
        typer.echo(dump_json(result))
        return
    console = Console()
    console.print(f"{result['device']}{'; ' + result['note'] if result['note'] else ''}")
    print_gate(console, result["gate"])
    for n, ratio in result["soup_step_over_base"].items():
        console.print(f"soups, {n} users: {ratio:.2f}x a base step")
    ratio = result["mixture_step_over_base"]
    console.print(f"mixture, 1 user: {ratio:.2f}x a base step")
    ratio = result["head_experts_step_over_base"]
    console.print(f"the same of experts on the head, in one pass: {ratio:.2f}x a base step")
    for line in result["not_measured"]:
        console.print(f"not measured: {line}")


if __name__ == "__main__":
    run(main)
