"""The mixture through a real OpenAI-compatible server against the same mixture in this process.

Needs a server that serves the small world's base and a library's experts; benchmarks/vllm_server
starts one:

    PALATE_ENDPOINT          its address, such as http://127.0.0.1:8123/v1
    PALATE_ENDPOINT_LIBRARY  the library's folder
    PALATE_ENDPOINT_PID      process to kill for the last test; leave it out to skip that
"""

import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from palate.core.errors import FormatError, ProviderError
from palate.core.plan import Plan, Pool, Row, one_hot
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.openai.endpoint import EndpointExpert, EndpointSettings, connect
from palate.mixture.bounds import Listed, pool_listed
from palate.mixture.remote import FixedShares, RemoteMixture, RemoteSettings
from palate.models.chat import encode_prompt
from palate.models.load import Base, load_base
from research.world.prompts import base_folder, format_prompt, held_out_prompts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "PALATE_ENDPOINT" not in os.environ,
        reason="PALATE_ENDPOINT names no server; docs/mixture.md says how to start one",
    ),
]


def total_variation(left: dict[int, float], right: dict[int, float]) -> float:
    tokens = left.keys() | right.keys()
    return 0.5 * math.fsum(abs(left.get(t, 0.0) - right.get(t, 0.0)) for t in tokens)


EXPERTS = ("elementary", "concise", "friendly")
SHARES = (0.5, 0.3, 0.2)
N_TOKENS = 200
SERVER_NOISE = 2e-4  # two float32 implementations of the same model, total variation


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(base_folder())


@pytest.fixture(scope="module")
def bank(base: Base) -> AdapterBank:
    folder = Path(os.environ["PALATE_ENDPOINT_LIBRARY"]) / "experts"
    return AdapterBank.load(base, {name: folder / name for name in EXPERTS})


def settings_for(model: str, **changes) -> EndpointSettings:
    return EndpointSettings(url=os.environ["PALATE_ENDPOINT"], model=model, **changes)


@pytest.fixture(scope="module")
def experts(base: Base) -> list[EndpointExpert]:
    return [connect(settings_for(name), base) for name in EXPERTS]


def mixture_plan() -> Plan:
    rows = tuple(Row(one_hot(index=k, n_experts=len(EXPERTS))) for k in range(len(EXPERTS)))
    return Plan(rows, Pool("linear", SHARES))


def context_of(base: Base, prompt: str) -> tuple[int, ...]:
    return tuple(encode_prompt(base, format_prompt(prompt)))


@pytest.fixture(scope="module")
def local(base: Base, bank: AdapterBank) -> list[tuple[tuple[int, ...], torch.Tensor]]:
    """Prefixes and the local mixture's next-token distributions, along 200 tokens of answers."""
    engine = LocalEngine(base, bank)
    found: list[tuple[tuple[int, ...], torch.Tensor]] = []
    for seed, prompt in enumerate(held_out_prompts()):
        context = context_of(base, prompt)
        request = Request(
            format_prompt(prompt), mixture_plan(), SamplingParams(max_tokens=80), seed
        )
        tokens = engine.generate([request])[0].tokens
        rows = row_distributions(base, bank, plan=mixture_plan(), item=Scored(context, tokens))
        mixed = torch.einsum("r,rtv->tv", torch.tensor(SHARES).double(), rows.double().exp())
        found += [((*context, *tokens[:place]), mixed[place]) for place in range(len(tokens))]
        if len(found) >= N_TOKENS:
            return found[:N_TOKENS]
    raise AssertionError("the held-out prompts' answers have fewer than 200 tokens")


@pytest.mark.parametrize("top_k", [5, 20, 100, 2048])
def test_the_servers_mixture_is_the_local_one_within_the_reported_bound(
    base: Base, experts: list[EndpointExpert], local, top_k: int
) -> None:
    found = []
    for prefix, mixed in local:
        lists = [
            Listed(
                {t: min(1.0, math.exp(v)) for t, v in e.next_log_probs(prefix, top_k=top_k).items()}
            )
            for e in experts
        ]
        pooled = pool_listed(lists, SHARES)
        exact = dict(enumerate((mixed / mixed.sum()).tolist()))
        agree = max(pooled.probs, key=lambda t: pooled.probs[t]) == int(mixed.argmax())
        found.append((total_variation(pooled.probs, exact), pooled.bound, agree))
    distances, bounds, agree = np.array(found).T
    print(  # noqa: T201 - the table of docs/mixture.md
        f"top_k {top_k}: bound mean {bounds.mean():.6f} max {bounds.max():.6f}, distance mean "
        f"{distances.mean():.6f} max {distances.max():.6f}, beyond the bound "
        f"{max(0.0, (distances - bounds).max()):.1e}, under 0.02 {np.mean(bounds < 0.02):.3f}, "
        f"same top token {agree.mean():.3f}, n {len(bounds)}"
    )
    assert np.all(distances <= bounds + SERVER_NOISE)
    assert top_k < len(base.tokenizer) or bounds.max() < SERVER_NOISE


def test_the_served_experts_are_the_local_ones(
    base: Base, bank: AdapterBank, experts: list[EndpointExpert]
) -> None:
    context = context_of(base, "What is a desert fox?")
    for place, expert in enumerate(experts):
        row = Row(one_hot(index=place, n_experts=bank.n_experts))
        plan = Plan((row,), Pool("single"))
        own = row_distributions(base, bank, plan=plan, item=Scored(context, (0,)))[0, 0]
        listed = expert.next_log_probs(context)
        assert len(listed) >= 20
        for token, log_prob in listed.items():
            assert log_prob == pytest.approx(float(own[token]), abs=0.01)


def test_greedy_answers_through_the_server_are_the_local_engines(
    base: Base, bank: AdapterBank, experts: list[EndpointExpert]
) -> None:
    remote = RemoteMixture(
        experts,
        n_vocab=len(base.tokenizer),
        stop_ids=base.stop_ids,
        settings=RemoteSettings(max_top_k=2048),
    )
    greedy = SamplingParams(temperature=0.0, max_tokens=80)
    engine = LocalEngine(base, bank)
    certified: list[bool] = []
    for prompt in held_out_prompts()[:5]:
        (own,) = engine.generate([Request(format_prompt(prompt), mixture_plan(), greedy)])
        contexts = [context_of(base, prompt)] * len(EXPERTS)
        found = remote.generate(contexts, FixedShares(SHARES), sampling=greedy)
        assert found.tokens == own.tokens
        certified += found.is_certified
    print(f"greedy: {len(certified)} tokens, certified {np.mean(certified):.3f}")  # noqa: T201


def test_a_server_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    from fakes import save_tiny_llama

    other = load_base(save_tiny_llama(tmp_path / "bytes"))
    with pytest.raises(FormatError, match="differ"):
        connect(settings_for(EXPERTS[0]), other)


def test_drawing_from_the_server_follows_the_mixture_roughly(
    base: Base, experts: list[EndpointExpert], local
) -> None:
    context, mixed = local[0]
    remote = RemoteMixture(
        experts,
        n_vocab=len(base.tokenizer),
        stop_ids=base.stop_ids,
        settings=RemoteSettings(mode="draws"),
    )
    source = FixedShares(SHARES)
    contexts = [context] * len(experts)
    one = SamplingParams(max_tokens=1)
    drawn = [
        remote.generate(contexts, source, sampling=one, seed=seed).tokens[0] for seed in range(200)
    ]
    top = int(mixed.argmax())
    expected = float(mixed[top])
    spread = math.sqrt(expected * (1 - expected) / len(drawn))
    assert abs(drawn.count(top) / len(drawn) - expected) < 4 * spread


class Switch:
    """Fixed shares, and after ten tokens a signal to the server."""

    def __init__(self, values: tuple[float, ...], what: signal.Signals) -> None:
        self.values, self.what = values, what

    def shares(self, tokens):
        if len(tokens) == 10:
            os.kill(int(os.environ["PALATE_ENDPOINT_PID"]), self.what)
        return np.array(self.values)


class LocalExpert:
    """The base in this process, with the face of a black box."""

    name = "the base here"

    def __init__(self, base: Base, bank: AdapterBank) -> None:
        self.base, self.bank = base, bank

    def next_log_probs(self, context, *, top_k=None):
        plan = Plan((Row((0.0,) * self.bank.n_experts),), Pool("single"))
        item = Scored(tuple(context), (0,))
        own = row_distributions(self.base, self.bank, plan=plan, item=item)[0, 0]
        return dict(enumerate(own.tolist()))

    def draw(self, context, *, n_tokens, seed):
        raise NotImplementedError


needs_victim = pytest.mark.skipif(
    "PALATE_ENDPOINT_PID" not in os.environ, reason="PALATE_ENDPOINT_PID names no process to kill"
)


@needs_victim
def test_a_server_that_hangs_in_the_middle_fails_the_answer_and_says_where(base: Base) -> None:
    slow = [connect(settings_for(n, n_retries=0, timeout_seconds=3), base) for n in EXPERTS]
    remote = RemoteMixture(slow, n_vocab=len(base.tokenizer), stop_ids=frozenset())
    contexts = [context_of(base, "What is a desert fox?")] * len(EXPERTS)
    hang = Switch(SHARES, signal.SIGSTOP)
    try:
        with pytest.raises(ProviderError, match=r"failed after 10 tokens.*within 3 seconds"):
            remote.generate(contexts, hang, sampling=SamplingParams(temperature=0, max_tokens=30))
    finally:
        os.kill(int(os.environ["PALATE_ENDPOINT_PID"]), signal.SIGCONT)


@needs_victim
def test_killed_in_the_middle_the_server_is_dropped_with_a_note_or_nobody_is_left(
    base: Base, bank: AdapterBank
) -> None:
    brief = connect(settings_for(EXPERTS[0], n_retries=0), base)
    remote = RemoteMixture(
        [brief, LocalExpert(base, bank)],
        n_vocab=len(base.tokenizer),
        stop_ids=frozenset(),
        settings=RemoteSettings(on_failure="drop"),
    )
    contexts = [context_of(base, "What is a desert fox?")] * 2
    kill = Switch((0.4, 0.6), signal.SIGKILL)
    found = remote.generate(contexts, kill, sampling=SamplingParams(temperature=0, max_tokens=30))
    assert len(found.tokens) == 30
    assert np.allclose(found.shares[:10], [0.4, 0.6])
    assert np.allclose(found.shares[10:], [0.0, 1.0])
    assert np.all(found.bounds[10:] >= 0.4 - 1e-9)
    assert "dropped after 10 tokens" in found.notes[0]
    alone = RemoteMixture(
        [brief],
        n_vocab=len(base.tokenizer),
        stop_ids=frozenset(),
        settings=RemoteSettings(on_failure="drop"),
    )
    with pytest.raises(ProviderError, match="No expert with a share is left"):
        alone.generate(contexts[:1], FixedShares((1.0,)), sampling=SamplingParams(max_tokens=3))
