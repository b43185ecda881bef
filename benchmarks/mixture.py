"""One decode step of K experts for one user, against peft.

The gate comes first. The engine decodes greedily under the uniform mixture of the K experts; every
token must be the one that K dense models, `W + s_k B_k A_k` each, give together in float32, and its
log-probability must agree. Then one decode step (one token on top of a cache) is raced: all experts
as rows of one batch on the bank, peft's `set_adapter` K times, peft's `adapter_names` in one batch,
and the base alone with one row. A second kind of experts runs beside them: those on the
unembedding alone, which share one pass and one cache; their logits are compared with dense ones.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from benchmarks.peers import Cache, LlamaSize, PeftUsers, random_adapters, random_base
from benchmarks.show import show_race
from benchmarks.timing import RaceSettings, Timing, race
from palate.core.errors import CheckFailedError
from palate.core.plan import Plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.settings import load_settings
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.pool import RowMap, pool_log_probs
from palate.models.adapter import Adapter
from palate.models.load import Base
from research.command_line import IsJson, Overrides, run
from research.mixture.plans import mixture_plan

ALONE, HEAD_ROWS = "base alone, one row", "experts on the head, one pass"
GATE = 1e-4  # nats, largest difference of a token's log-probability to the dense experts'


class MixtureBenchSettings(RaceSettings):
    """Sizes of the race; the defaults are a Llama of 26 M parameters."""

    context_tokens: int = Field(default=64, ge=1)
    gate_tokens: int = Field(default=256, ge=1)


@dataclass(frozen=True)
class MixtureBench:
    """What was measured.

    Attributes:
        settings: Sizes.
        largest_difference: Of log-probabilities to the dense experts, nats.
        head_difference: The same of experts on the head, in one step.
        timings: Seconds of one decode step, by contestant.
    """

    settings: MixtureBenchSettings
    largest_difference: float
    head_difference: float
    timings: dict[str, Timing]

    def to_json(self) -> dict[str, Any]:
        """Plain data: gate, seconds and ratios."""
        rows = self.timings["rows of the bank"]
        return {
            "settings": self.settings.model_dump(),
            "gate": {
                "tokens": self.settings.gate_tokens,
                "largest_difference": self.largest_difference,
                "limit": GATE,
            },
            "head_gate": {"largest_difference": self.head_difference, "limit": GATE},
            "head_experts_step_over_base": self.timings[HEAD_ROWS].ratio_to(self.timings[ALONE]),
            "phases": {
                "decode": {
                    "median_seconds": {n: t.median_seconds for n, t in self.timings.items()},
                    "minimum_seconds": {n: t.minimum_seconds for n, t in self.timings.items()},
                    "times_faster_than": {n: t.ratio_to(rows) for n, t in self.timings.items()},
                }
            },
        }


def bench_mixture(settings: MixtureBenchSettings) -> MixtureBench:
    """Check the gate, then race.

    Raises:
        CheckFailedError: a token or a log-probability differs from the dense experts'.
    """
    size = LlamaSize(settings.hidden, settings.intermediate, settings.n_layers, settings.vocab)
    base = random_base(size, seed=settings.seed)
    bare = copy.deepcopy(base.model)
    adapters = random_adapters(
        base, n_experts=settings.n_experts, rank=settings.rank, seed=settings.seed
    )
    bank = AdapterBank(base, adapters)
    generator = torch.Generator().manual_seed(settings.seed)
    context = torch.randint(1, settings.vocab, (settings.context_tokens,), generator=generator)
    with torch.inference_mode():
        gap = _gate(base, bank, bare, adapters, context, n_tokens=settings.gate_tokens)
        peft = PeftUsers(replace(base, model=bare), adapters, torch.zeros(0, settings.n_experts))
        peft.names = list(adapters)
        heads = random_adapters(
            base,
            n_experts=settings.n_experts,
            rank=settings.rank,
            seed=settings.seed + 1,
            targets=("lm_head",),
        )
        head_bank = AdapterBank(base, heads)
        head_gap = _head_gate(base, head_bank, bare, heads, context)
        runs = _decoders(base, (bank, head_bank), bare, peft, context)
        timings = race(runs, n_repeats=settings.n_repeats)
    return MixtureBench(settings, gap, head_gap, timings)


def _plan(context: Tensor, *, n_experts: int) -> Plan:
    plain = mixture_plan(experts=range(n_experts), n_experts=n_experts)
    ids = tuple(context.tolist())
    return Plan(tuple(replace(row, context=ids) for row in plain.rows), plain.pool)


def _gate(
    base: Base,
    bank: AdapterBank,
    bare: torch.nn.Module,
    adapters: Mapping[str, Adapter],
    context: Tensor,
    *,
    n_tokens: int,
) -> float:
    sampling = SamplingParams(temperature=0.0, max_tokens=n_tokens)
    request = Request("<pad>", _plan(context, n_experts=len(adapters)), sampling)
    (result,) = LocalEngine(base, bank).generate([request])
    answer = torch.tensor(result.tokens)
    ids = torch.cat([context, answer[:-1]]).unsqueeze(0)
    mixed = torch.zeros(())
    for adapter in adapters.values():
        logits = _dense(bare, adapter)(ids).logits[0, len(context) - 1 :]
        mixed = mixed + torch.softmax(logits, dim=-1) / len(adapters)
    gap = (mixed.log().gather(1, answer.unsqueeze(1))[:, 0] - torch.tensor(result.log_probs)).abs()
    wrong = (mixed.argmax(dim=1) != answer).nonzero()
    if len(wrong) or float(gap.max()) > GATE:
        raise CheckFailedError(
            f"The engine differs from dense experts: {len(wrong)} of {len(answer)} tokens, "
            f"log-probabilities by up to {float(gap.max()):.1e} nats (limit {GATE:.0e})."
        )
    return float(gap.max())


def _head_gate(
    base: Base,
    bank: AdapterBank,
    bare: torch.nn.Module,
    adapters: Mapping[str, Adapter],
    context: Tensor,
) -> float:
    """Largest difference of log-probabilities between rows of one sequence and dense experts."""
    ids = context.unsqueeze(0)
    with bank.applied(torch.eye(len(adapters)), sequences=[0] * len(adapters)):
        result = base.model(ids).logits[:, -1].log_softmax(dim=-1)
    dense = [_dense(bare, adapter)(ids).logits[0, -1] for adapter in adapters.values()]
    gap = float((torch.stack(dense).log_softmax(dim=-1) - result).abs().max())
    if gap > GATE:
        raise CheckFailedError(
            f"Experts on the head differ from dense ones by {gap:.1e} nats (limit {GATE:.0e})."
        )
    return gap


def _dense(bare: torch.nn.Module, adapter: Adapter) -> torch.nn.Module:
    model = copy.deepcopy(bare)
    for name, factor in adapter.items():
        layer: Any = model.get_submodule(name)
        change = factor.scale * factor.up @ factor.down
        layer.weight = torch.nn.Parameter(layer.weight + change)  # a tied embedding stays
    return model


def _decoders(
    base: Base,
    banks: tuple[AdapterBank, AdapterBank],
    bare: torch.nn.Module,
    peft: PeftUsers,
    context: Tensor,
) -> dict[str, Callable[[], object]]:
    bank, head_bank = banks
    n_experts = bank.n_experts
    rows = context.unsqueeze(0).expand(n_experts, -1)
    pool = RowMap.of([_plan(context, n_experts=n_experts)], device=base.device)
    identity = torch.eye(n_experts)

    def on_bank(tokens: Tensor, cache: Cache) -> Tensor:
        with bank.applied(identity):
            return base.model(tokens, past_key_values=cache).logits[:, -1]

    def on_heads(tokens: Tensor, cache: Cache) -> Tensor:
        with head_bank.applied(identity, sequences=[0] * n_experts):
            return base.model(tokens, past_key_values=cache).logits[:, -1]

    def step(run: Callable[[Tensor, Cache], Tensor], whole: Tensor) -> Callable[[], object]:
        cache = Cache()
        run(whole, cache)
        last = whole[:, -1:]

        def once() -> None:
            logits = run(last, cache)
            pool_log_probs(logits, pool if len(logits) > 1 else _single(base))
            cache.crop(-1)

        return once

    caches = [Cache() for _ in rows]
    peft.one_at_a_time(rows, caches)

    def one_at_a_time() -> None:
        pool_log_probs(peft.one_at_a_time(rows[:, -1:], caches), pool)
        for cache in caches:
            cache.crop(-1)

    return {
        "rows of the bank": step(on_bank, rows),
        "peft set_adapter, one at a time": one_at_a_time,
        "peft adapter_names, one batch": step(peft.in_one_batch, rows),
        HEAD_ROWS: step(on_heads, rows[:1]),
        ALONE: step(
            lambda tokens, cache: bare(tokens, past_key_values=cache).logits[:, -1], rows[:1]
        ),
    }


def _single(base: Base) -> RowMap:
    return RowMap.of([reference_plan(n_experts=1)], device=base.device)


def main(*, overrides: Overrides = None, is_json: IsJson = False) -> None:
    """8 experts as rows of one batch, against peft one expert at a time and mixed."""
    result = bench_mixture(load_settings(MixtureBenchSettings, overrides=overrides or ())).to_json()
    show_race(result, is_json=is_json)


if __name__ == "__main__":
    run(main)
