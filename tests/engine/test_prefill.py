"""What is read and what is shared: the same answers from fewer tokens."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import save_random_adapter
from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, output_soup_plan, parameter_soup_plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.local import LocalSession as Session
from palate.engine.prefill import PrefillSettings
from palate.engine.request import RunningRequest
from palate.models.load import Base
from research.mixture.plans import mixture_plan

LONG = "The old harbour lies where the river meets the sea, and in the morning"  # 70 bytes
SAMPLING = SamplingParams(max_tokens=8)


@pytest.fixture(scope="module")
def banks(
    base: Base, base_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, AdapterBank]]:
    """Three experts each: in all layers, on the head alone, in the last block behind its keys."""
    folder = tmp_path_factory.mktemp("reach")
    found: dict[str, AdapterBank] = {}
    targets = {
        "all": ["q_proj", "v_proj", "o_proj", "up_proj"],
        "head": ["lm_head"],
        "last": ["model.layers.1.mlp.up_proj", "model.layers.1.self_attn.q_proj"],
    }
    for kind, layers in targets.items():
        paths = {
            f"{kind}{seed}": save_random_adapter(
                base_folder, folder / f"{kind}{seed}", seed=seed, targets=layers
            )
            for seed in range(3)
        }
        found[kind] = AdapterBank.load(base, paths)
    yield found
    for bank in found.values():
        bank.close()


@contextmanager
def passes(base: Base) -> Generator[list[tuple[int, int]]]:
    """Rows and tokens of every pass of the model."""
    seen: list[tuple[int, int]] = []
    handle = base.model.get_input_embeddings().register_forward_hook(
        lambda _module, args, _output: seen.append(tuple(args[0].shape))
    )
    yield seen
    handle.remove()


def run(session: Session, requests: list[Request]) -> list[RunningRequest]:
    running_requests = [session.add_request(request, is_traced=True) for request in requests]
    while not session.is_idle:
        session.step()
    return running_requests


def require_same(found: list[RunningRequest], expected: list[RunningRequest]) -> None:
    for running, other in zip(found, expected, strict=True):
        assert running.tokens == other.tokens
        assert np.allclose(running.log_probs, other.log_probs, atol=1e-4)
        assert np.allclose(running.row_log_probs, other.row_log_probs, atol=1e-4)


def engines(base: Base, bank: AdapterBank) -> tuple[LocalEngine, LocalEngine]:
    return LocalEngine(base, bank), LocalEngine(base, bank, prefill=PrefillSettings(4096))


PLANS = [
    reference_plan(n_experts=3),
    parameter_soup_plan((0.6, -0.2, 0.3)),
    output_soup_plan((0.5, 0.4, -0.2)),
    mixture_plan(experts=(0, 1, 2), n_experts=3),
]


@pytest.mark.parametrize("kind", ["all", "head", "last"])
def test_answers_are_the_same_whatever_was_read_before(
    kind: str, base: Base, banks: dict[str, AdapterBank]
) -> None:
    without, keeping = engines(base, banks[kind])
    requests = [
        Request(prompt, plan, replace(SAMPLING, max_tokens=3 + 2 * k), seed=k)
        for prompt in (LONG, LONG[:40], LONG[:33] + " in winter, or when the wind is up", "Why?")
        for k, plan in enumerate(PLANS)
    ]
    expected = [run(without.open_session(), [request])[0] for request in requests]
    session = keeping.open_session()
    require_same(run(session, requests), expected)
    again = run(session, requests)
    require_same(again, expected)
    n_tokens = [len(running.prompt) for running in again]
    assert n_tokens[::4] == [70, 40, 67, 4]
    # read together: as many tokens each as the one with most to read, 40 less two blocks
    assert [running.n_cached_tokens for running in again[::4]] == [62, 32, 59, 0]


def test_a_prompt_is_reused_by_the_same_coefficients_only(
    base: Base, banks: dict[str, AdapterBank]
) -> None:
    session = engines(base, banks["all"])[1].open_session()
    soups = [parameter_soup_plan((0.6, -0.2, 0.3)), parameter_soup_plan((0.6, -0.2, 0.4))]
    first = run(session, [Request(LONG, soups[0], SAMPLING)])
    other = run(session, [Request(LONG, soups[1], SAMPLING)])
    again = run(session, [Request(LONG, soups[0], SAMPLING)])
    assert [running.n_cached_tokens for running in (*first, *other, *again)] == [0, 0, 64]


@pytest.mark.parametrize("kind", ["head", "last"])
def test_users_share_a_prompt_where_their_experts_leave_keys_and_values_alone(
    kind: str, base: Base, banks: dict[str, AdapterBank]
) -> None:
    session = engines(base, banks[kind])[1].open_session()
    soups = [parameter_soup_plan((0.6, -0.2, 0.1 * k)) for k in range(4)]
    first = run(session, [Request(LONG, soups[0], SAMPLING)])
    others = run(session, [Request(LONG, soup, SAMPLING) for soup in soups[1:]])
    assert [running.n_cached_tokens for running in (*first, *others)] == [0, 64, 64, 64]


def test_no_scope_gains_from_what_another_asked(base: Base, banks: dict[str, AdapterBank]) -> None:
    session = engines(base, banks["head"])[1].open_session()
    request = Request(LONG, PLANS[1], SAMPLING, scope="one")
    run(session, [request])
    (stranger,) = run(session, [replace(request, scope="two")])
    (known,) = run(session, [request])
    assert (stranger.n_cached_tokens, known.n_cached_tokens) == (0, 64)
    with passes(base) as seen:
        run(session, [replace(request, scope="three"), replace(request, scope="four")])
    assert seen[0] == (2, 70)  # not even within one step


def test_of_a_forgotten_scope_nothing_stays_cached(
    base: Base, banks: dict[str, AdapterBank]
) -> None:
    session = engines(base, banks["head"])[1].open_session()
    mine, theirs = (Request(LONG, PLANS[1], SAMPLING, scope=scope) for scope in ("one", "two"))
    run(session, [mine, theirs])
    session.forget("one")
    under_way = session.add_request(replace(mine, prompt=LONG[::-1]))  # begun before, perhaps
    while not session.is_idle:
        session.step()
    assert under_way.tokens
    again = [run(session, [one])[0] for one in (mine, under_way.request, theirs)]
    assert [running.n_cached_tokens for running in again] == [0, 0, 64]


def test_the_next_turn_reads_only_what_is_new(base: Base, banks: dict[str, AdapterBank]) -> None:
    without, keeping = engines(base, banks["all"])
    session = keeping.open_session()
    plan = mixture_plan(experts=(0, 2), n_experts=3)
    turn = Request(LONG, plan, SamplingParams(max_tokens=30, temperature=0.0))
    (first,) = run(session, [turn])
    ids = (*first.prompt, *first.tokens)
    follow = Plan(tuple(replace(row, context=(*ids, 70, 71, 72)) for row in plan.rows), plan.pool)
    (second,) = run(session, [Request("x", follow, SAMPLING)])
    assert second.n_cached_tokens == (len(ids) - 1) // 16 * 16 >= 80
    require_same([second], run(without.open_session(), [Request("x", follow, SAMPLING)]))


def test_experts_on_the_head_cost_one_pass_however_many_they_are(
    base: Base, banks: dict[str, AdapterBank]
) -> None:
    requests = [
        Request(LONG, mixture_plan(experts=(0, 1, 2), n_experts=3), SAMPLING),
        Request(LONG, output_soup_plan((0.5, 0.4, -0.2)), SAMPLING, seed=1),
    ]
    without, _ = engines(base, banks["head"])
    with passes(base) as seen:
        running_requests = run(without.open_session(), requests)
    assert [running.n_sequences for running in running_requests] == [1, 1]
    assert seen[0] == (1, 70)  # one reading for both
    assert set(seen[1:]) <= {(2, 1), (1, 1)}
    with passes(base) as seen:
        run(LocalEngine(base, banks["all"]).open_session(), requests)
    assert seen[:2] == [(4, 70), (7, 1)]  # the base and three experts; then every row its own


def test_experts_that_share_keys_and_values_read_a_prompt_once(
    base: Base, banks: dict[str, AdapterBank]
) -> None:
    request = Request(LONG, mixture_plan(experts=(0, 1, 2), n_experts=3), SAMPLING)
    without, keeping = engines(base, banks["last"])
    with passes(base) as seen:
        (running,) = run(keeping.open_session(), [request])
    assert seen[:3] == [(1, 70), (2, 6), (3, 1)]
    require_same([running], run(without.open_session(), [request]))


def test_a_long_prompt_does_not_pad_short_ones(base: Base, banks: dict[str, AdapterBank]) -> None:
    engine = engines(base, banks["all"])[0]
    requests = [
        Request("Why?" * (40 if k == 3 else 1), PLANS[1], SAMPLING, seed=k) for k in range(9)
    ]
    requests = [replace(r, prompt=f"{k}{r.prompt}") for k, r in enumerate(requests)]
    with passes(base) as seen:
        found = run(engine.open_session(), requests)
    assert seen[:2] == [(1, 161), (8, 5)]
    require_same(found, [run(engine.open_session(), [request])[0] for request in requests])


@pytest.mark.parametrize("kind", ["all", "head", "last"])
def test_a_long_prompt_is_read_in_parts_while_others_go_on(
    kind: str, base: Base, banks: dict[str, AdapterBank]
) -> None:
    talk = Request("Why?", PLANS[1], SamplingParams(max_tokens=20), seed=1)
    long = Request(LONG * 2, PLANS[3], SAMPLING, seed=2)  # 140 tokens
    plain = engines(base, banks[kind])[0]
    expected = [run(plain.open_session(), [request])[0] for request in (talk, long)]
    session = LocalEngine(base, banks[kind], prefill=PrefillSettings(4096, 48)).open_session()
    first = session.add_request(talk, is_traced=True)
    session.step()
    second = session.add_request(long, is_traced=True)
    before: list[int] = []
    with passes(base) as seen:
        while not second.tokens:
            before.append(len(first.tokens))
            session.step()
    # three lanes share 48 tokens a part, one has them all; the rest is at most one part long
    n_chunks = {"all": 8, "head": 2, "last": 8}[kind]
    assert before == list(range(1, n_chunks + 2))
    assert (second.n_chunks, second.n_cached_tokens) == (n_chunks, 0)
    assert max(width for _, width in seen) <= 48
    while not session.is_idle:
        session.step()
    require_same([first, second], expected)


def test_who_is_alone_is_not_read_in_parts(base: Base, banks: dict[str, AdapterBank]) -> None:
    engine = LocalEngine(base, banks["all"], prefill=PrefillSettings(4096, 48))
    with passes(base) as seen:
        run(engine.open_session(), [Request(LONG * 2, PLANS[1], SAMPLING)])
    assert seen[0] == (1, 140)


def test_a_prompt_too_long_to_be_kept_is_read_at_once(
    base: Base, banks: dict[str, AdapterBank]
) -> None:
    engine = LocalEngine(base, banks["all"], prefill=PrefillSettings(100, 48))
    session = engine.open_session()
    session.add_request(Request("Why?", PLANS[1], SamplingParams(max_tokens=20)))
    session.step()
    long = session.add_request(Request(LONG * 2, PLANS[1], SAMPLING, seed=2))
    session.step()
    assert (len(long.tokens), long.n_chunks) == (1, 0)


def test_positions_count_passes_and_not_rows(base: Base, banks: dict[str, AdapterBank]) -> None:
    request = Request(LONG, mixture_plan(experts=(0, 1, 2), n_experts=3), SAMPLING)
    LocalEngine(base, banks["head"], max_num_batched_tokens=80).generate([request])
    with pytest.raises(InvalidInputError, match="needs 3 x 78 positions"):
        LocalEngine(base, banks["all"], max_num_batched_tokens=80).generate([request])


def test_fewer_than_no_prefix_tokens_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="max_prefix_tokens is -1; give 0"):
        PrefillSettings(-1)
    with pytest.raises(InvalidInputError, match="prefill_chunk_tokens is 0; give at least 1"):
        PrefillSettings(1, 0)
