"""What is gained by reading prompts once, in parts, and by their length.

Four races on a random Llama with experts in all blocks, each against the same engine without:

    again       a long prompt that was read before under the same coefficients: time to first token
    in parts    a long prompt arrives while others write: the longest pause between their tokens
    lengths     one long prompt among short ones: time to read them all
    long rows   one more token in every row of a large batch of long texts: room left in the cache,
                against transformers' cache, which copies all for each token

The gate: every token's log-probability is that of an engine that keeps nothing and reads at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from pydantic import Field
from rich.console import Console

from benchmarks.peers import Cache, LlamaSize, random_adapters, random_base
from benchmarks.show import show_race
from benchmarks.timing import RaceSettings, Timing, race
from palate.core.errors import CheckFailedError
from palate.core.plan import Plan, parameter_soup_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.settings import load_settings
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.local import LocalSession as Session
from palate.engine.prefill import PrefillSettings
from palate.engine.request import RunningRequest
from palate.models.cache import empty_kv
from palate.models.load import Base
from research.command_line import IsJson, Overrides, run

GATE = 1e-4  # nats, largest difference of a token's log-probability
TOGETHER = 10**9  # tokens that another pass would have to save: never


class ReadingBenchSettings(RaceSettings):
    """Sizes of the races; the defaults are a Llama of 26 M parameters."""

    long_tokens: int = Field(default=1024, ge=1)
    new_tokens: int = Field(default=24, ge=1)
    short_tokens: int = Field(default=24, ge=1)
    n_users: int = Field(default=8, ge=1)
    n_long_rows: int = Field(default=32, ge=1)
    part_tokens: int = Field(default=128, ge=1)


@dataclass(frozen=True)
class ReadingBench:
    """What was measured.

    Attributes:
        settings: Sizes.
        largest_difference: Of log-probabilities, nats.
        timings: Seconds by race and contestant.
        step_seconds: Of a step of the others alone, median.
    """

    settings: ReadingBenchSettings
    largest_difference: float
    timings: dict[str, dict[str, Timing]]
    step_seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain data: gate, seconds and ratios."""
        return {
            "settings": self.settings.model_dump(),
            "gate": {"largest_difference": self.largest_difference, "limit": GATE},
            "step_seconds": self.step_seconds,
            "phases": {
                name: {
                    "median_seconds": {n: t.median_seconds for n, t in result.items()},
                    "minimum_seconds": {n: t.minimum_seconds for n, t in result.items()},
                    "times_faster_than": {
                        n: t.ratio_to(next(iter(result.values()))) for n, t in result.items()
                    },
                }
                for name, result in self.timings.items()
            },
        }


def bench_reading(settings: ReadingBenchSettings) -> ReadingBench:
    """Check the gate, then race.

    Raises:
        CheckFailedError: a log-probability differs from that of an engine that reads plainly.
    """
    size = LlamaSize(settings.hidden, settings.intermediate, settings.n_layers, settings.vocab)
    base = random_base(size, seed=settings.seed)
    adapters = random_adapters(
        base, n_experts=settings.n_experts, rank=settings.rank, seed=settings.seed
    )
    bank = AdapterBank(base, adapters)
    kept = 4 * settings.long_tokens
    plain = LocalEngine(base, bank)
    together = LocalEngine(base, bank, prefill=PrefillSettings(pass_tokens=TOGETHER))
    keeping = LocalEngine(base, bank, prefill=PrefillSettings(kept))
    parted = LocalEngine(base, bank, prefill=PrefillSettings(kept, settings.part_tokens))
    asks = _Asks(settings)
    gap = _gate(plain, parted, asks)
    pauses, step = _pauses(plain, parted, asks)
    timings = {
        "again": race(_again(plain, keeping, asks), n_repeats=settings.n_repeats),
        "in parts": pauses,
        "lengths": race(_lengths(plain, together, asks), n_repeats=settings.n_repeats),
        "long rows": race(_long_rows(base, asks), n_repeats=settings.n_repeats),
    }
    return ReadingBench(settings, gap, timings, step)


class _Asks:
    """Requests of the races."""

    def __init__(self, settings: ReadingBenchSettings) -> None:
        self.settings = settings
        self._drawn = np.random.default_rng(settings.seed)
        self.long = self.tokens(settings.long_tokens)
        self.soups = self._drawn.normal(size=(settings.n_users, settings.n_experts))

    def tokens(self, n: int) -> tuple[int, ...]:
        """Random ids, others at every call."""
        return tuple(self._drawn.integers(1, self.settings.vocab, size=n).tolist())

    def of(self, context: tuple[int, ...], *, user: int = 0, max_tokens: int = 1) -> Request:
        """One user's request with this context."""
        plan = parameter_soup_plan(tuple(self.soups[user].tolist()))
        rows = tuple(replace(row, context=context) for row in plan.rows)
        return Request("<pad>", Plan(rows, plan.pool), SamplingParams(max_tokens=max_tokens), user)

    def others(self, *, max_tokens: int) -> list[Request]:
        """Short requests of everybody."""
        n = self.settings.short_tokens
        return [
            self.of(self.tokens(n), user=user, max_tokens=max_tokens)
            for user in range(self.settings.n_users)
        ]


def _finish(session: Session, running_requests: list[RunningRequest]) -> list[RunningRequest]:
    while not session.is_idle:
        session.step()
    return running_requests


def _gate(plain: LocalEngine, parted: LocalEngine, asks: _Asks) -> float:
    """Chunked prefill of a text, again, and with new tokens after it, beside other requests."""
    others = asks.others(max_tokens=40)
    longs = [
        asks.of(context, max_tokens=8)
        for context in (asks.long, asks.long, asks.long + asks.tokens(asks.settings.new_tokens))
    ]
    session, running_requests = parted.open_session(), list[RunningRequest]()
    running_requests.extend(session.add_request(request) for request in others)
    for request in longs:
        session.step()
        running_requests.append(session.add_request(request))
    _finish(session, running_requests)
    expected = [
        _finish(s, [s.add_request(r)])[0] for r in [*others, *longs] for s in [plain.open_session()]
    ]
    gap = max(
        float(np.abs(np.subtract(running.log_probs, other.log_probs)).max())
        if running.tokens == other.tokens
        else np.inf
        for running, other in zip(running_requests, expected, strict=True)
    )
    if gap > GATE:
        raise CheckFailedError(
            f"Chunked or cached prefill differs by {gap:.1e} nats (limit {GATE:.0e})."
        )
    return gap


def _again(
    plain: LocalEngine, keeping: LocalEngine, asks: _Asks
) -> dict[str, Callable[[], object]]:
    """A prompt that begins with a long text, then new words: known, or read anew."""
    session = keeping.open_session()
    _finish(session, [session.add_request(asks.of(asks.long))])

    def ask(session: Session) -> None:
        context = asks.long + asks.tokens(asks.settings.new_tokens)
        _finish(session, [session.add_request(asks.of(context))])

    return {"known": lambda: ask(session), "read anew": lambda: ask(plain.open_session())}


def _lengths(
    plain: LocalEngine, together: LocalEngine, asks: _Asks
) -> dict[str, Callable[[], object]]:
    """One prompt half as long among short ones, to everybody's first token."""
    longest = asks.long[: len(asks.long) // 2]

    def ask(engine: LocalEngine) -> None:
        session = engine.open_session()
        requests = [asks.of(longest), *asks.others(max_tokens=1)]
        _finish(session, [session.add_request(request) for request in requests])

    return {"by length": lambda: ask(plain), "all in one pass": lambda: ask(together)}


@torch.inference_mode()
def _long_rows(base: Base, asks: _Asks) -> dict[str, Callable[[], object]]:
    """A step of many rows that have read a long text, here the same one."""
    text = torch.tensor([asks.long], device=base.device)
    tokens = text[:, -1:].expand(asks.settings.n_long_rows, -1)

    def step(cache: Any) -> Callable[[], object]:
        base.model(text, past_key_values=cache, logits_to_keep=1)
        cache.batch_repeat_interleave(len(tokens))

        @torch.inference_mode()
        def run() -> None:
            base.model(tokens, past_key_values=cache)

        return run

    return {"room left": step(empty_kv()), "copied": step(Cache())}


def _pauses(
    plain: LocalEngine, parted: LocalEngine, asks: _Asks
) -> tuple[dict[str, Timing], float]:
    """The longest step of others while a long prompt arrives, and their usual one."""
    longest: dict[str, list[float]] = {"in parts": [], "at once": []}
    usual: list[float] = []
    for _ in range(asks.settings.n_repeats):
        context = asks.tokens(asks.settings.long_tokens)  # nobody knows it
        for name, engine in (("in parts", parted), ("at once", plain)):
            session = engine.open_session()
            n_chunks = -(-asks.settings.long_tokens // asks.settings.part_tokens)
            for request in asks.others(max_tokens=n_chunks + 12):
                session.add_request(request)
            seconds = [_step(session) for _ in range(5)][1:]
            usual.extend(seconds)
            running = session.add_request(asks.of(context))
            seconds = [_step(session)]
            while not running.tokens:
                seconds.append(_step(session))
            longest[name].append(max(seconds))
    timings = {
        name: Timing(min(result), float(np.median(result)), len(result))
        for name, result in longest.items()
    }
    return timings, float(np.median(usual))


def _step(session: Session) -> float:
    start = perf_counter()
    session.step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter() - start


def main(*, overrides: Overrides = None, is_json: IsJson = False) -> None:
    """Prompts that are known, arrive while others write, or differ in length; against without."""
    result = bench_reading(load_settings(ReadingBenchSettings, overrides=overrides or ())).to_json()
    show_race(result, is_json=is_json)
    if not is_json:
        Console().print(f"a step of the others alone: {1000 * result['step_seconds']:.1f} ms")


if __name__ == "__main__":
    run(main)
