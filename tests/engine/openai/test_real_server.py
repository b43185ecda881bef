"""Black boxes behind a real OpenAI-compatible server against the same experts in this process.

Needs a server that serves the small world's base and a library's experts; benchmarks/vllm_server
starts one:

    PALATE_ENDPOINT          its address, such as http://127.0.0.1:8123/v1
    PALATE_ENDPOINT_LIBRARY  the library's folder
    PALATE_ENDPOINT_PID      process to kill for the last test; leave it out to skip that
"""

import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from engine_battery import generate_reported
from palate.core.errors import FormatError, ProviderError
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.listed import pool_lists
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.openai.endpoint import Endpoint, OpenAISettings
from palate.engine.openai.engine import OpenAIEngine, open_engine
from palate.engine.parts import EngineParts
from palate.models.chat import encode_prompt
from palate.models.load import Base, load_base
from research.mixture.plans import mixture_plan
from research.world.prompts import base_folder, format_prompt, held_out_prompts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "PALATE_ENDPOINT" not in os.environ,
        reason="PALATE_ENDPOINT names no server; docs/mixture.md says how to start one",
    ),
]
EXPERTS = ("elementary", "concise", "friendly")
SHARES = (0.5, 0.3, 0.2)
PLAN = mixture_plan(experts=range(3), n_experts=3, shares=SHARES)
N_TOKENS = 200
SERVER_NOISE = 2e-4  # two float32 implementations of the same model, total variation

Prefixes = list[tuple[tuple[int, ...], torch.Tensor]]


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(base_folder())


def expert_folders() -> dict[str, Path]:
    folder = Path(os.environ["PALATE_ENDPOINT_LIBRARY"]) / "experts"
    return {name: folder / name for name in EXPERTS}


@pytest.fixture(scope="module")
def bank(base: Base) -> AdapterBank:
    return AdapterBank.load(base, expert_folders())


def engine_of(base: Base, bank: AdapterBank, **changes) -> OpenAIEngine:
    url = os.environ["PALATE_ENDPOINT"]
    values = {"endpoints": {name: {"url": url, "model": name} for name in EXPERTS}, **changes}
    parts = EngineParts(base, bank, expert_folders(), {}, list)
    return open_engine(OpenAISettings.checked(values, source="test"), parts)


def context_of(base: Base, prompt: str) -> tuple[int, ...]:
    return tuple(encode_prompt(base, format_prompt(prompt)))


@pytest.fixture(scope="module")
def local(base: Base, bank: AdapterBank) -> Prefixes:
    """Prefixes and the local mixture's next-token distributions, along 200 tokens of answers."""
    engine = LocalEngine(base, bank)
    prefixes: Prefixes = []
    for seed, prompt in enumerate(held_out_prompts()):
        context = context_of(base, prompt)
        request = Request(format_prompt(prompt), PLAN, SamplingParams(max_tokens=80), seed)
        tokens = engine.generate([request])[0].tokens
        rows = row_distributions(base, bank, plan=PLAN, item=Scored(context, tokens))
        mixed = torch.einsum("r,rtv->tv", torch.tensor(SHARES).double(), rows.double().exp())
        prefixes += [((*context, *tokens[:place]), mixed[place]) for place in range(len(tokens))]
        if len(prefixes) >= N_TOKENS:
            return prefixes[:N_TOKENS]
    raise AssertionError("the held-out prompts' answers have fewer than 200 tokens")


def total_variation(left: Mapping[int, float], right: Mapping[int, float]) -> float:
    tokens = left.keys() | right.keys()
    return 0.5 * math.fsum(abs(left.get(t, 0.0) - right.get(t, 0.0)) for t in tokens)


@pytest.mark.parametrize("top_k", [5, 20, 100, 2048])
def test_the_servers_mixture_is_the_local_one_within_the_reported_bound(
    base: Base, bank: AdapterBank, local: Prefixes, top_k: int
) -> None:
    endpoints = engine_of(base, bank).endpoints.values()
    rows = []
    for prefix, mixed in local:
        lists = [one.next_log_probs(prefix, top_k=top_k) for one in endpoints]
        pooled = pool_lists(lists, PLAN.pool, n_vocab=len(base.tokenizer))
        exact = dict(enumerate((mixed / mixed.sum()).tolist()))
        agree = max(pooled.probs, key=lambda t: pooled.probs[t]) == int(mixed.argmax())
        rows.append((total_variation(pooled.probs, exact), pooled.bound, agree))
    distances, bounds, agree = np.array(rows).T
    print(  # noqa: T201 - the table of docs/mixture.md
        f"top_k {top_k}: bound mean {bounds.mean():.6f} max {bounds.max():.6f}, distance mean "
        f"{distances.mean():.6f} max {distances.max():.6f}, beyond the bound "
        f"{max(0.0, (distances - bounds).max()):.1e}, under 0.02 {np.mean(bounds < 0.02):.3f}, "
        f"same top token {agree.mean():.3f}, n {len(bounds)}"
    )
    assert np.all(distances <= bounds + SERVER_NOISE)
    assert top_k < len(base.tokenizer) or bounds.max() < SERVER_NOISE


def test_the_served_experts_are_the_local_ones(base: Base, bank: AdapterBank) -> None:
    context = context_of(base, "What is a desert fox?")
    own = row_distributions(base, bank, plan=PLAN, item=Scored(context, (0,)))[:, 0]
    for row, endpoint in zip(own, engine_of(base, bank).endpoints.values(), strict=True):
        listed = endpoint.next_log_probs(context, top_k=20)
        assert len(listed) >= 20
        for token, log_prob in listed.items():
            assert log_prob == pytest.approx(float(row[token]), abs=0.01)


def test_greedy_answers_through_the_server_are_the_local_engines(
    base: Base, bank: AdapterBank
) -> None:
    sampling = SamplingParams(temperature=0.0, max_tokens=80)
    requests = [Request(format_prompt(p), PLAN, sampling) for p in held_out_prompts()[:5]]
    remote = engine_of(base, bank, max_top_k=2048, budget=0.02)
    certified: list[bool] = []
    own = LocalEngine(base, bank).generate(requests)
    for ours, theirs in zip(own, generate_reported(remote, requests), strict=True):
        assert theirs.completion.tokens == ours.tokens
        certified += theirs.report.certified
    print(f"greedy: {len(certified)} tokens, certified {np.mean(certified):.3f}")  # noqa: T201


def test_a_server_with_another_tokenizer_is_refused(bank: AdapterBank, tmp_path: Path) -> None:
    from fakes import save_tiny_llama

    other = load_base(save_tiny_llama(tmp_path / "bytes"))
    with pytest.raises(FormatError, match="differ"):
        engine_of(other, bank)


def test_samples_of_the_server_follow_the_mixture_roughly(
    base: Base, bank: AdapterBank, local: Prefixes
) -> None:
    prompt, (_, mixed) = format_prompt(held_out_prompts()[0]), local[0]
    one = SamplingParams(max_tokens=1)
    requests = [Request(prompt, PLAN, one, seed) for seed in range(200)]
    tokens = [answer.tokens[0] for answer in engine_of(base, bank, top_k=0).generate(requests)]
    top = int(mixed.argmax())
    expected = float(mixed[top])
    spread = math.sqrt(expected * (1 - expected) / len(tokens))
    assert abs(tokens.count(top) / len(tokens) - expected) < 4 * spread


class Trigger:
    """An endpoint that sends a signal to the server before its eleventh list."""

    def __init__(self, endpoint: Endpoint, what: signal.Signals) -> None:
        self.endpoint, self.what, self.n_lists = endpoint, what, 0

    def next_log_probs(self, context, *, top_k):
        if self.n_lists == 10:
            os.kill(int(os.environ["PALATE_ENDPOINT_PID"]), self.what)
        self.n_lists += 1
        return self.endpoint.next_log_probs(context, top_k=top_k)


class LocalExpert:
    """The base in this process, with the interface of an endpoint."""

    def __init__(self, base: Base, bank: AdapterBank) -> None:
        self.base, self.bank = base, bank

    def next_log_probs(self, context, *, top_k):
        item = Scored(tuple(context), (0,))
        own = row_distributions(self.base, self.bank, plan=PLAN, item=item)[1, 0]
        return dict(enumerate(own.tolist()))


needs_victim = pytest.mark.skipif(
    "PALATE_ENDPOINT_PID" not in os.environ, reason="PALATE_ENDPOINT_PID names no process to kill"
)


def long_request(plan) -> Request:
    sampling = SamplingParams(temperature=0, max_tokens=30)
    return Request(format_prompt("What is a desert fox?"), plan, sampling)


@needs_victim
def test_a_server_that_hangs_in_the_middle_fails_the_answer_and_reports_where(
    base: Base, bank: AdapterBank
) -> None:
    engine = engine_of(base, bank, n_retries=0, timeout_seconds=3)
    engine.endpoints["elementary"] = Trigger(engine.endpoints["elementary"], signal.SIGSTOP)
    try:
        with pytest.raises(ProviderError, match=r"failed after 10 tokens.*within 3 seconds"):
            engine.generate([long_request(PLAN)])
    finally:
        os.kill(int(os.environ["PALATE_ENDPOINT_PID"]), signal.SIGCONT)


@needs_victim
def test_killed_in_the_middle_the_server_is_dropped_with_a_note_or_no_expert_is_left(
    base: Base, bank: AdapterBank
) -> None:
    engine = engine_of(base, bank, n_retries=0, on_failure="drop")
    engine.endpoints["elementary"] = Trigger(engine.endpoints["elementary"], signal.SIGKILL)
    engine.endpoints["concise"] = LocalExpert(base, bank)
    both = mixture_plan(experts=(0, 1), n_experts=3, shares=(0.4, 0.6))
    (answer,) = generate_reported(engine, [long_request(both)])
    assert len(answer.completion.tokens) == 30
    assert np.all(np.array(answer.report.list_bounds[10:]) >= 0.4 - 1e-9)
    assert "dropped after 10 tokens" in answer.report.notes[0]
    alone = mixture_plan(experts=(0, 2), n_experts=3, shares=(0.5, 0.5))
    with pytest.raises(ProviderError, match="No expert with a share is left"):
        engine.generate([long_request(alone)])
