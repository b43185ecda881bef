"""Many users with different coefficients in one batch, against peft.

The gate comes first: every user's logits must equal those of a dense model `W + sum_k c_k s_k B_k
A_k`. Then one
decode step (one token per user on top of a cache) and one prefill are raced against peft with one
exactly merged
adapter per user, one at a time and in one batch, against the same arithmetic as a loop over
experts, and
against the bare base.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from benchmarks.peers import (
    Cache,
    LlamaSize,
    LoopedExperts,
    PeftUsers,
    layer_sizes,
    random_adapters,
    random_base,
)
from benchmarks.show import show_race
from benchmarks.timing import RaceSettings, Timing, race
from palate.core.errors import CheckFailedError
from palate.core.settings import load_settings
from palate.engine.bank import AdapterBank
from research.command_line import IsJson, Overrides, run

GATE = 1e-5  # largest difference of logits to the dense model, float32


class BankBenchSettings(RaceSettings):
    """Sizes of the race; the defaults are a Llama of 26 M parameters."""

    n_users: int = Field(default=16, ge=1)
    context_tokens: int = Field(default=64, ge=1)


@dataclass(frozen=True)
class BankBench:
    """What was measured; ratios are medians, above one means that the bank is faster.

    Attributes:
        largest_difference: Of logits to the dense model, over all users.
        timings: Seconds by phase and contestant.
        theory: Extra multiply-adds of the stacked adapters over the base's, as a fraction.
    """

    settings: BankBenchSettings
    largest_difference: float
    timings: dict[str, dict[str, Timing]]
    theory: float

    def to_json(self) -> dict[str, Any]:
        """Plain data: gate, seconds and ratios by phase."""
        return {
            "settings": self.settings.model_dump(),
            "gate": {"largest_difference": self.largest_difference, "limit": GATE},
            "theory_overhead_fraction": self.theory,
            "phases": {
                phase: {
                    "median_seconds": {name: t.median_seconds for name, t in timings.items()},
                    "minimum_seconds": {name: t.minimum_seconds for name, t in timings.items()},
                    "times_faster_than": {
                        name: t.ratio_to(timings["bank"]) for name, t in timings.items()
                    },
                }
                for phase, timings in self.timings.items()
            },
        }


def bench_bank(settings: BankBenchSettings) -> BankBench:
    """Check the gate, then race.

    Raises:
        CheckFailedError: the logits differ from the dense model's by more than the gate.
    """
    size = LlamaSize(settings.hidden, settings.intermediate, settings.n_layers, settings.vocab)
    base = random_base(size, seed=settings.seed)
    adapters = random_adapters(
        base, n_experts=settings.n_experts, rank=settings.rank, seed=settings.seed
    )
    generator = torch.Generator().manual_seed(settings.seed)
    coefficients = torch.randn(settings.n_users, settings.n_experts, generator=generator)
    tokens = torch.randint(
        settings.vocab, (settings.n_users, settings.context_tokens), generator=generator
    )
    bare = copy.deepcopy(base.model)
    peft = PeftUsers(base, adapters, coefficients)
    looped = LoopedExperts(base, adapters, coefficients)
    bank = AdapterBank(base, adapters)

    def with_bank(ids: Tensor, cache: Cache | None) -> Tensor:
        with bank.applied(coefficients):
            return base.model(ids, past_key_values=cache).logits[:, -1]

    runs: dict[str, Callable[[Tensor, Cache | None], Tensor]] = {
        "bank": with_bank,
        "peft cat, adapter_names": peft.in_one_batch,
        "loop over experts": lambda ids, cache: looped.model(ids, past_key_values=cache).logits[
            :, -1
        ],
        "base alone": lambda ids, cache: bare(ids, past_key_values=cache).logits[:, -1],
    }
    with torch.inference_mode():
        gap = _largest_difference(base, adapters, coefficients, tokens, with_bank(tokens, None))
        if gap > GATE:
            raise CheckFailedError(f"The bank's logits differ from the dense model's by {gap:.2e}.")
        timings = {
            "decode": race(_decoders(runs, peft, tokens), n_repeats=settings.n_repeats),
            "prefill": race(_prefills(runs, peft, tokens), n_repeats=settings.n_repeats),
        }
    return BankBench(settings, gap, timings, _theory(base, settings))


def _prefills(
    runs: dict[str, Callable[[Tensor, Cache | None], Tensor]],
    peft: PeftUsers,
    tokens: Tensor,
) -> dict[str, Callable[[], object]]:
    result: dict[str, Callable[[], object]] = {
        name: lambda run=run: run(tokens, None) for name, run in runs.items()
    }
    result["peft one at a time"] = lambda: peft.one_at_a_time(tokens, [None] * len(tokens))
    return result


def _decoders(
    runs: dict[str, Callable[[Tensor, Cache | None], Tensor]],
    peft: PeftUsers,
    tokens: Tensor,
) -> dict[str, Callable[[], object]]:
    last = tokens[:, -1:]

    def step(run: Callable[[Tensor, Cache | None], Tensor]) -> Callable[[], object]:
        cache = Cache()
        run(tokens, cache)

        def once() -> None:
            run(last, cache)
            cache.crop(-1)

        return once

    result = {name: step(run) for name, run in runs.items()}
    caches = [Cache() for _ in tokens]
    peft.one_at_a_time(tokens, caches)

    def one_at_a_time() -> None:
        peft.one_at_a_time(last, caches)
        for cache in caches:
            cache.crop(-1)

    return {**result, "peft one at a time": one_at_a_time}


def _largest_difference(
    base: Any, adapters: Any, coefficients: Tensor, tokens: Tensor, result: Tensor
) -> float:
    gap = 0.0
    for user, row in enumerate(coefficients.tolist()):
        dense = copy.deepcopy(base.model)
        for module in dense.modules():
            module._forward_hooks.clear()
        matrices = dict(dense.named_modules())
        for coefficient, adapter in zip(row, adapters.values(), strict=True):
            for layer, factor in adapter.items():
                matrices[layer].weight += coefficient * factor.scale * factor.up @ factor.down
        expected = dense(tokens[user : user + 1]).logits[:, -1]
        gap = max(gap, float((expected - result[user]).abs().max()))
    return gap


def _theory(base: Any, settings: BankBenchSettings) -> float:
    sizes = list(layer_sizes(base))
    adapted = sizes[:-1]  # all but the head
    extra = settings.n_experts * settings.rank * sum(d_in + d_out for d_in, d_out in adapted)
    return extra / sum(d_in * d_out for d_in, d_out in sizes)


def main(*, overrides: Overrides = None, is_json: IsJson = False) -> None:
    """16 users with 16 coefficient vectors over 8 experts, against peft and a loop."""
    result = bench_bank(load_settings(BankBenchSettings, overrides=overrides or ())).to_json()
    show_race(result, is_json=is_json)


if __name__ == "__main__":
    run(main)
