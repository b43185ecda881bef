"""An open-ended run: requests join, leave and break, and nobody else notices."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from palate.core.errors import InvalidInputError
from palate.core.plan import parameter_soup_plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.batch import Batch
from palate.engine.local import LocalEngine
from palate.engine.local import LocalSession as Session
from palate.engine.request import FAILED, RunningRequest
from palate.models.load import Base
from research.mixture.plans import mixture_plan

PLANS = [
    reference_plan(n_experts=4),
    parameter_soup_plan((0.4, -0.3, 0.8, 0.1)),
    mixture_plan(experts=(0, 1, 3), n_experts=4),
]
POISON = "~"
REQUESTS = [
    Request(prompt, PLANS[k % 3], SamplingParams(max_tokens=5 + 2 * k), seed=k)
    for k, prompt in enumerate(["What is rain?", "Why", "Tell me more.", "How do bees fly?", "Oh"])
]


@pytest.fixture(scope="module")
def engine(base: Base, bank: AdapterBank) -> LocalEngine:
    return LocalEngine(base, bank, max_num_seqs=12)


def drained(session: Session) -> dict[RunningRequest, str]:
    ends: dict[RunningRequest, str] = {}
    while not session.is_idle:
        for running, token in session.step():
            if token.finish:
                ends[running] = token.finish
    return ends


def test_requests_that_join_a_running_batch_are_answered_as_alone(engine: LocalEngine) -> None:
    expected = engine.generate(REQUESTS)
    session, running_requests = engine.open_session(), list[RunningRequest]()
    for request in REQUESTS:  # one more joins at every step
        running_requests.append(session.add_request(request))
        session.step()
    drained(session)
    assert [tuple(running.tokens) for running in running_requests] == [
        answer.tokens for answer in expected
    ]
    assert [running.text.text for running in running_requests] == [
        answer.text for answer in expected
    ]


def test_who_is_cancelled_leaves_at_once_and_the_others_go_on(engine: LocalEngine) -> None:
    expected = engine.generate(REQUESTS)
    session = engine.open_session()
    running_requests = [session.add_request(request) for request in REQUESTS]
    session.step()
    rows = session.n_rows
    session.abort_request(running_requests[2])
    assert session.n_rows == rows - 3
    session.abort_request(running_requests[2])  # twice is once
    waiting = session.add_request(REQUESTS[0])
    session.abort_request(waiting)
    ends = drained(session)
    assert set(ends) == {
        running_requests[0],
        running_requests[1],
        running_requests[3],
        running_requests[4],
    }
    for k in (0, 1, 3, 4):
        assert tuple(running_requests[k].tokens) == expected[k].tokens
    assert len(running_requests[2].tokens) == 1
    session.abort_request(running_requests[0])  # ended long ago
    assert session.n_rows == 0


def test_cancelling_the_only_request_leaves_an_idle_session(engine: LocalEngine) -> None:
    session = engine.open_session()
    running = session.add_request(REQUESTS[4])
    session.step()
    session.abort_request(running)
    assert session.is_idle
    assert session.step() == []


@contextmanager
def poisoned(base: Base, kind: str) -> Iterator[None]:
    """Prompts with the byte `POISON` break the pass that they are in."""

    def hook(_module: torch.nn.Module, args: tuple[torch.Tensor], output: torch.Tensor):
        hit = args[0] == base.tokenizer(POISON, add_special_tokens=False)["input_ids"][0]
        if kind == "raises" and bool(hit.any()):
            raise RuntimeError("the device is on fire")
        return output.masked_fill(hit.unsqueeze(-1), torch.nan)

    handle = base.model.get_input_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize(("kind", "words"), [("raises", "RuntimeError"), ("nan", "NaN")])
def test_one_request_in_fifty_that_breaks_its_pass_ends_alone(
    engine: LocalEngine, base: Base, kind: str, words: str
) -> None:
    few = [
        Request(one.prompt, one.plan, SamplingParams(max_tokens=4), one.seed) for one in REQUESTS
    ]
    expected = engine.generate(few)
    poison = Request(f"Why {POISON}?", PLANS[0], SamplingParams(max_tokens=4))
    session = engine.open_session()
    with poisoned(base, kind):
        bad = [session.add_request(poison)]
        good = [session.add_request(few[k % 5]) for k in range(49)]
        assert [token.finish for _, token in session.step()].count(FAILED) == 1
        bad.append(session.add_request(poison))  # while others run
        assert drained(session)[bad[1]] == FAILED
        alone = engine.open_session()
        bad.append(alone.add_request(poison))
        assert drained(alone) == {bad[2]: FAILED}
    for running in bad:
        assert words in str(running.error)
    for k, running in enumerate(good):
        assert tuple(running.tokens) == expected[k % 5].tokens, k


def test_a_pass_that_fails_once_harms_nobody(engine: LocalEngine) -> None:
    expected = engine.generate(REQUESTS)
    session = engine.open_session()
    running_requests = [session.add_request(request) for request in REQUESTS]
    session.step()
    decode, n_calls = session._runner.decode, 0

    def fail_once(batch: Batch) -> None:
        nonlocal n_calls
        n_calls += 1
        decode(batch)
        if n_calls == 1:
            raise RuntimeError("out of memory")

    session._runner.decode = fail_once
    assert FAILED not in drained(session).values()
    assert [tuple(one.tokens) for one in running_requests] == [one.tokens for one in expected]


def test_a_token_without_an_embedding_is_refused_at_the_door(base: Base, bank: AdapterBank) -> None:
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.add_tokens(["<extra>"])
    session = LocalEngine(replace(base, tokenizer=tokenizer), bank).open_session()
    with pytest.raises(InvalidInputError, match="'<extra>', of which the base"):
        session.add_request(Request("Why <extra>?", PLANS[0]))
    assert session.is_idle


def test_answers_end_where_the_base_reads_no_further(engine: LocalEngine, base: Base) -> None:
    room = 8
    prompt = "a" * (base.n_positions - room)
    (answer,) = engine.generate([Request(prompt, PLANS[0], SamplingParams(max_tokens=99))])
    assert (len(answer.tokens), answer.finish) == (room, "length")


def test_positions_are_bounded(base: Base, bank: AdapterBank) -> None:
    small = LocalEngine(base, bank, max_num_seqs=12, max_num_batched_tokens=100)
    session = small.open_session()
    long = SamplingParams(max_tokens=40)
    for k in range(6):
        session.add_request(Request("Why", PLANS[0], long, seed=k))
    most = 0
    while not session.is_idle:
        session.step()
        most = max(most, session.n_running * 44)  # bos and three bytes read, 40 written
        assert session.n_running * 44 <= 100
    assert most == 88
    with pytest.raises(InvalidInputError, match="holds at most 100"):
        session.add_request(Request("Why", PLANS[0], SamplingParams(max_tokens=98)))
    with pytest.raises(InvalidInputError, match="max_num_batched_tokens is 0"):
        LocalEngine(base, bank, max_num_batched_tokens=0)


def test_the_most_probable_tokens_are_kept_for_those_who_ask(engine: LocalEngine) -> None:
    session = engine.open_session()
    asking = session.add_request(
        Request("Why", PLANS[1], SamplingParams(temperature=0.0, max_tokens=6)), n_top=3
    )
    other = session.add_request(REQUESTS[0])
    drained(session)
    assert other.top == []
    assert [len(top) for top in asking.top] == [3] * len(asking.tokens)
    for token, log_prob, top in zip(asking.tokens, asking.log_probs, asking.top, strict=True):
        assert top[0] == (token, pytest.approx(log_prob))  # greedy
        assert top[0][1] >= top[1][1] >= top[2][1]
