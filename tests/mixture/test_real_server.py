"""The mixture through a real OpenAI-compatible server against the same mixture in this process.

Needs a server that serves a base and adapters of it, see `docs/mixture.md`:

    PALATE_ENDPOINT           its address, such as http://127.0.0.1:8123/v1
    PALATE_ENDPOINT_BASE      the base's folder
    PALATE_ENDPOINT_ADAPTERS  name=folder,name=folder: the adapters under their names on the server
    PALATE_ENDPOINT_PID       process to kill for the last test; leave it out to skip that
"""

import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from palate.core.errors import FormatError
from palate.core.plan import Plan, Pool, Row, one_hot
from palate.core.protocols import Sampling
from palate.mixture.bounds import Listed, pool_listed, total_variation
from palate.mixture.remote import FixedShares, RemoteMixture, RemoteSettings
from palate.models.bank import AdapterBank
from palate.models.chat import encode_prompt
from palate.models.endpoint import EndpointExpert, EndpointSettings, connect
from palate.models.load import Base, load_base
from palate.models.logprobs import Scored, row_distributions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "PALATE_ENDPOINT" not in os.environ,
        reason="PALATE_ENDPOINT names no server; docs/mixture.md says how to start one",
    ),
]
N_TOKENS = 200
SERVER_NOISE = 2e-3  # two float32 implementations of the same model, total variation


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(os.environ["PALATE_ENDPOINT_BASE"])


@pytest.fixture(scope="module")
def folders() -> dict[str, Path]:
    pairs = (pair.split("=") for pair in os.environ["PALATE_ENDPOINT_ADAPTERS"].split(","))
    return {name: Path(folder) for name, folder in pairs}


@pytest.fixture(scope="module")
def bank(base: Base, folders: dict[str, Path]) -> AdapterBank:
    return AdapterBank.load(base, folders)


def settings_for(model: str, **changes) -> EndpointSettings:
    return EndpointSettings(url=os.environ["PALATE_ENDPOINT"], model=model, **changes)


@pytest.fixture(scope="module")
def experts(base: Base, folders: dict[str, Path]) -> list[EndpointExpert]:
    return [connect(settings_for(name), base) for name in folders]


@pytest.fixture(scope="module")
def local(base: Base, bank: AdapterBank) -> tuple[list[int], torch.Tensor, np.ndarray]:
    """Context, the mixture's distributions along 200 tokens, and these tokens (drawn locally)."""
    context = encode_prompt(base, "Once upon a time")
    generator = np.random.default_rng(0)
    rows = tuple(Row(one_hot(index=k, n_experts=bank.n_experts)) for k in range(bank.n_experts))
    plan = Plan(rows, Pool("linear", shares(bank.n_experts)))
    tokens: list[int] = []
    mixed = []
    for _ in range(N_TOKENS):
        item = Scored((*context, *tokens), (0,))
        logs = row_distributions(base, bank, plan=plan, item=item)[:, 0]
        probs = (torch.tensor(shares(bank.n_experts))[:, None] * logs.exp()).sum(dim=0).double()
        mixed.append(probs / probs.sum())
        drawn = generator.choice(len(probs), p=mixed[-1].numpy())
        tokens.append(int(drawn) if int(drawn) not in base.stop_ids else context[-1])
    return context, torch.stack(mixed), np.array(tokens)


def shares(n_experts: int) -> tuple[float, ...]:
    rising = np.arange(1, n_experts + 1) / np.arange(1, n_experts + 1).sum()
    return tuple(rising.tolist())


@pytest.mark.parametrize("top_k", [5, 20, 100, 512])
def test_the_servers_mixture_is_the_local_one_within_the_reported_bound(
    base: Base, experts: list[EndpointExpert], local, top_k: int
) -> None:
    context, mixed, tokens = local
    found = []
    for place in range(N_TOKENS):
        prefix = [*context, *tokens[:place].tolist()]
        lists = [
            Listed(
                {t: min(1.0, math.exp(v)) for t, v in e.next_log_probs(prefix, top_k=top_k).items()}
            )
            for e in experts
        ]
        pooled = pool_listed(lists, shares(len(experts)))
        exact = dict(enumerate(mixed[place].tolist()))
        found.append((total_variation(pooled.probs, exact), pooled.bound))
    distances, bounds = np.array(found).T
    print(  # noqa: T201 - the table of docs/mixture.md
        f"top_k {top_k}: bound mean {bounds.mean():.5f} max {bounds.max():.5f}, distance mean "
        f"{distances.mean():.5f} max {distances.max():.5f}, exact {np.mean(bounds < 1e-6):.2f}"
    )
    assert np.all(distances <= bounds + SERVER_NOISE)
    assert top_k < len(base.tokenizer) or bounds.max() < SERVER_NOISE


def test_the_served_experts_are_the_local_ones(
    base: Base, bank: AdapterBank, experts: list[EndpointExpert]
) -> None:
    context = tuple(encode_prompt(base, "Lily and the big"))
    for place, expert in enumerate(experts):
        row = Row(one_hot(index=place, n_experts=bank.n_experts))
        plan = Plan((row,), Pool("single"))
        own = row_distributions(base, bank, plan=plan, item=Scored(context, (0,)))[0, 0]
        listed = expert.next_log_probs(context)
        assert len(listed) >= 20
        for token, log_prob in listed.items():
            assert log_prob == pytest.approx(float(own[token]), abs=0.01)


def test_a_server_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    from fakes import save_tiny_llama

    other = load_base(save_tiny_llama(tmp_path / "bytes"))
    name = os.environ["PALATE_ENDPOINT_ADAPTERS"].split("=")[0]
    with pytest.raises(FormatError, match="differ"):
        connect(settings_for(name), other)


def test_drawing_from_the_server_follows_the_mixture_roughly(
    base: Base, experts: list[EndpointExpert], local
) -> None:
    context, mixed, _ = local
    remote = RemoteMixture(
        experts,
        n_vocab=len(base.tokenizer),
        stop_ids=base.stop_ids,
        settings=RemoteSettings(mode="draws"),
    )
    source = FixedShares(shares(len(experts)))
    contexts = [context] * len(experts)
    one = Sampling(max_tokens=1)
    drawn = [
        remote.generate(contexts, source, sampling=one, seed=seed).tokens[0] for seed in range(200)
    ]
    top = int(mixed[0].argmax())
    expected = float(mixed[0][top])
    spread = math.sqrt(expected * (1 - expected) / len(drawn))
    assert abs(drawn.count(top) / len(drawn) - expected) < 4 * spread


def test_killed_in_the_middle_the_server_is_dropped_or_the_answer_fails(
    base: Base, folders: dict[str, Path], experts: list[EndpointExpert]
) -> None:
    if "PALATE_ENDPOINT_PID" not in os.environ:
        pytest.skip("PALATE_ENDPOINT_PID names no process to kill")
    from palate.core.errors import ProviderError

    class Killer:
        """Even shares, and after ten tokens the end of the server."""

        def shares(self, tokens):
            if len(tokens) == 10:
                os.kill(int(os.environ["PALATE_ENDPOINT_PID"]), signal.SIGKILL)
            return np.full(len(experts), 1 / len(experts))

    brief = [connect(settings_for(name, n_retries=0), base) for name in folders]
    remote = RemoteMixture(brief, n_vocab=len(base.tokenizer), stop_ids=frozenset())
    contexts = [encode_prompt(base, "Once upon a time")] * len(brief)
    with pytest.raises(ProviderError, match="failed after 10 tokens"):
        remote.generate(contexts, Killer(), sampling=Sampling(temperature=0, max_tokens=30))
