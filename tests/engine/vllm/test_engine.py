"""The engine over HTTP against the engine in this process, on a server of dense models."""

from dataclasses import replace

import numpy as np
import pytest

from engine_battery import generate_reported
from palate.core.errors import FormatError, InvalidInputError, NotCertifiedError, ProviderError
from palate.core.plan import (
    Plan,
    Pool,
    Row,
    member_plan,
    output_soup_plan,
    parameter_soup_plan,
    reference_plan,
)
from palate.core.protocols import Request, SamplingParams
from palate.engine.local import LocalEngine
from palate.engine.request import FAILED
from research.mixture.plans import mixture_plan
from vllm_stand_in import StandIn


def drain(session) -> None:
    while not session.is_idle:
        session.step()


NAMES = ("short", "wide", "head")
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)
N_VOCAB = 259
PLANS = {
    "base": reference_plan(n_experts=3),
    "member": member_plan(index=1, n_experts=3),
    "soup": parameter_soup_plan((0.5, -0.3, 0.9)),
    "output soup": output_soup_plan((0.5, -0.3, 0.9)),
    "mixture": mixture_plan(experts=(0, 2), n_experts=3, shares=(0.3, 0.7)),
    "other context": Plan((Row((0.0, 1.0, 0.0), context=(1, 70, 71)),), Pool("single")),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_greedy_tokens_and_log_probs_are_those_of_the_engine_in_this_process(
    connected, local: LocalEngine, plan: Plan
) -> None:
    requests = [Request(prompt, plan, GREEDY) for prompt in ("A cat", "Why?")]
    for served, own in zip(
        generate_reported(connected(), requests), local.generate(requests), strict=True
    ):
        assert served.completion.tokens == own.tokens
        assert served.completion.text == own.text
        assert served.completion.finish == own.finish
        assert np.allclose(served.completion.log_probs, own.log_probs, atol=1e-4)
        assert served.report.is_exact
        assert all(served.report.certified)


@pytest.mark.parametrize("method", ["member", "output soup"])
def test_what_the_server_caches_of_a_prompt_serves_one_scope(
    connected, server: StandIn, method: str
) -> None:
    engine = connected()
    for scope in ("one tenant", ""):
        server.calls.clear()
        engine.generate([Request("A cat", PLANS[method], GREEDY, scope=scope)])
        assert {call.get("cache_salt", "") for call in server.calls} == {scope}


@pytest.mark.parametrize("method", ["soup", "output soup", "mixture"])
def test_tokens_drawn_here_are_those_of_the_engine_in_this_process(
    connected, local: LocalEngine, method: str
) -> None:
    sampling = SamplingParams(
        temperature=0.8, top_k=40, top_p=0.95, repetition_penalty=1.2, max_tokens=9
    )
    requests = [Request("A cat", PLANS[method], sampling, seed) for seed in range(3)]
    served = connected(draws="own").generate(requests)
    assert [a.tokens for a in served] == [a.tokens for a in local.generate(requests)]


@pytest.mark.parametrize(
    "sampling", [GREEDY, SamplingParams(temperature=0.8, top_k=40, max_tokens=9)]
)
def test_an_implicit_soup_is_executed_as_the_explicit_one(
    connected, sampling: SamplingParams
) -> None:
    explicit = PLANS["output soup"]
    implicit = replace(explicit, pool=replace(explicit.pool, is_implicit=True))
    engine = connected(draws="own")
    own, other = (
        engine.generate([Request("A cat", plan, sampling, seed) for seed in range(3)])
        for plan in (explicit, implicit)
    )
    assert [a.tokens for a in other] == [a.tokens for a in own]
    assert [a.log_probs for a in other] == [a.log_probs for a in own]


@pytest.mark.parametrize("kind", ["linear", "log_linear"])
def test_a_controllers_shares_are_asked_for_at_every_token(
    connected, local: LocalEngine, kind: str
) -> None:
    class Alternating:
        """Shares that follow the number of tokens drawn."""

        def start(self) -> "Alternating":
            return self

        def shares(self, running_requests):
            import torch

            return [
                torch.tensor([0.2, 0.8] if len(e.tokens) % 2 else [0.9, 0.1])
                for e in running_requests
            ]

    plan = mixture_plan(experts=(0, 1), n_experts=3, controller="turns")
    plan = replace(plan, pool=replace(plan.pool, kind=kind))
    request = Request("A cat", plan, GREEDY)
    own = LocalEngine(local.base, local.bank, controllers={"turns": Alternating()})
    served = connected(controllers={"turns": Alternating()}).generate([request])
    assert served[0].tokens == own.generate([request])[0].tokens


def test_rounded_coefficients_are_served_and_their_bound_is_told(
    connected, local: LocalEngine, server: StandIn
) -> None:
    engine = connected(coefficient_step=0.1, rates=(1.0, 2.0, 0.5))
    users = [parameter_soup_plan(c) for c in ((0.52, -0.31, 0.0), (0.48, -0.29, 0.03))]
    served = generate_reported(engine, [Request("A cat", plan, GREEDY) for plan in users])
    near = local.generate([Request("A cat", parameter_soup_plan((0.5, -0.3, 0.0)), GREEDY)])[0]
    for one in served:
        assert one.completion.tokens == near.tokens
        assert one.report.coefficients == ((0.5, -0.3, 0.0),)
        assert not one.report.is_exact
    assert served[0].report.rounding_bound == pytest.approx(0.02 * 1 + 0.01 * 2)
    assert served[1].report.rounding_bound == pytest.approx(0.02 * 1 + 0.01 * 2 + 0.03 * 0.5)
    assert len(server.loaded) == 1  # two users, one adapter


def test_without_rates_rounding_is_told_by_its_norm_and_nothing_is_certified(connected) -> None:
    served = generate_reported(
        connected(coefficient_step=0.1),
        [Request("A cat", parameter_soup_plan((0.52, 0.0, 0.2)), GREEDY)],
    )[0]
    assert served.report.rounding_bound is None
    assert served.report.parameter_change > 0
    assert not any(served.report.certified)


def test_short_lists_have_a_bound_that_holds_and_fails_above_the_budget(
    connected, local: LocalEngine
) -> None:
    request = Request("A cat", PLANS["mixture"], GREEDY)
    served = generate_reported(connected(top_k=40, max_top_k=40, budget=1.0), [request])[0]
    assert all(0.0 < bound < 1.0 for bound in served.report.list_bounds)
    own = local.generate([request])[0]
    for place, holds in enumerate(served.report.certified):
        if served.completion.tokens[:place] == own.tokens[:place] and holds:
            assert served.completion.tokens[place] == own.tokens[place]
    with pytest.raises(NotCertifiedError, match=r"known only within .* raise max_top_k"):
        connected(top_k=5, max_top_k=10, budget=0.01).generate([request])
    longer = generate_reported(connected(top_k=5, max_top_k=N_VOCAB, budget=0.01), [request])[0]
    assert longer.completion.tokens == own.tokens
    assert max(longer.report.list_bounds) == 0.0


def test_more_soups_than_slots_are_loaded_in_turn_and_the_oldest_is_evicted(
    connected, local: LocalEngine, server: StandIn
) -> None:
    engine = connected(max_adapters=2, max_concurrent=4)
    plans = [parameter_soup_plan((0.1 * k, 0.2, 0.0)) for k in range(1, 7)] * 2
    requests = [Request("A cat", plan, GREEDY) for plan in plans]
    served = engine.generate(requests)
    assert [a.tokens for a in served] == [a.tokens for a in local.generate(requests)]
    assert server.most_loaded <= 2
    assert engine.context.cache.n_evictions == engine.context.cache.n_loads - 2
    engine.close()
    assert not any(name.startswith("palate-soup") for name in server.models)


def test_soups_that_a_restarted_server_forgot_are_loaded_again(
    connected, local: LocalEngine, server: StandIn
) -> None:
    engine = connected()
    request = Request("A cat", PLANS["soup"], GREEDY)
    before = engine.generate([request])[0]
    server.forget()
    assert engine.generate([request])[0].tokens == before.tokens
    assert len(server.loaded) == 2


def test_a_stop_string_ends_the_answer_before_it_as_in_this_process(
    connected, local: LocalEngine
) -> None:
    text = local.generate([Request("A cat", PLANS["member"], GREEDY)])[0].text
    request = Request(
        "A cat", PLANS["member"], SamplingParams(temperature=0.0, max_tokens=12, stop=(text[3:5],))
    )
    own = local.generate([request])[0]
    served = connected().generate([request])[0]
    assert (served.text, served.finish) == (own.text, own.finish)
    assert served.finish == "stop"


def test_streams_of_two_requests_hold_the_same_text_as_their_answers(connected) -> None:
    engine = connected()
    requests = [Request("A cat", PLANS["member"], GREEDY), Request("Why?", PLANS["soup"], GREEDY)]
    texts = ["", ""]
    for token in engine.stream(requests):
        texts[token.request] += token.text
    assert texts == [answer.text for answer in engine.generate(requests)]


def test_a_cancelled_request_sends_no_more_tokens_and_the_session_becomes_idle(connected) -> None:
    session = connected().open_session()
    running = session.add_request(Request("A cat", PLANS["member"], SamplingParams(max_tokens=200)))
    session.abort_request(running)
    assert session.is_idle
    assert session.step() == []
    session.close()


def test_top_lists_are_kept_for_those_who_ask(connected, local: LocalEngine) -> None:
    session = connected().open_session()
    running = session.add_request(Request("A cat", PLANS["member"], GREEDY), n_top=3)
    drain(session)
    own = local.open_session()
    twin = own.add_request(Request("A cat", PLANS["member"], GREEDY), n_top=3)
    while not own.is_idle:
        own.step()
    assert [[t for t, _ in top] for top in running.top] == [[t for t, _ in top] for top in twin.top]


SMOOTH = SamplingParams(temperature=0.0, repetition_penalty=1.3)
REFUSED = {
    "expects another bank": (reference_plan(n_experts=2), GREEDY, {}, "2 coefficients a row"),
    "repetition rules": (PLANS["member"], SMOOTH, {}, "set draws: own"),
    "unknown controller": (
        mixture_plan(experts=(0, 1), n_experts=3, controller="boss"),
        GREEDY,
        {},
        "controller 'boss', which is not loaded",
    ),
    "signed pool of short lists": (
        PLANS["output soup"],
        GREEDY,
        {"top_k": 20, "max_top_k": 20},
        "whole vocabularies, but max_top_k is 20 of 259",
    ),
    "rank": (PLANS["soup"], GREEDY, {"max_lora_rank": 8}, "rank 10, but max_lora_rank is 8"),
}


@pytest.mark.parametrize(
    ("plan", "sampling", "changes", "sentence"), REFUSED.values(), ids=REFUSED.keys()
)
def test_what_it_cannot_do_is_refused_in_a_sentence(
    connected, plan: Plan, sampling: SamplingParams, changes: dict, sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        connected(**changes).generate([Request("A cat", plan, sampling)])


def test_what_every_row_said_is_kept_for_those_who_ask(connected, local: LocalEngine) -> None:
    request = Request("A cat", PLANS["mixture"], GREEDY)
    session = connected(top_k=40, budget=1.0).open_session()  # whole lists all the same
    running = session.add_request(request, is_traced=True)
    drain(session)
    own = local.trace([request])[0]
    assert np.allclose(running.shares, own.shares)
    assert np.allclose(running.row_log_probs, own.row_log_probs, atol=1e-4)


def test_traces_of_mixtures_are_refused_where_lists_are_short(connected) -> None:
    session = connected(top_k=20, max_top_k=20).open_session()
    session.add_request(Request("A", PLANS["member"], GREEDY), is_traced=True)
    with pytest.raises(InvalidInputError, match="leave explain out"):
        session.add_request(Request("A", PLANS["mixture"]), is_traced=True)
    session.close()


def test_a_connection_that_breaks_ends_the_answer_with_an_error(connected, server: StandIn) -> None:
    server.dies_after = 3
    with pytest.raises(ProviderError, match="in the middle of an answer") as failure:
        connected().generate([Request("A cat", PLANS["member"], GREEDY)])
    assert failure.value.is_retryable


def test_a_server_that_falls_silent_ends_the_answer_in_time(connected, server: StandIn) -> None:
    engine = connected(timeout_seconds=0.5)
    with server.lock, pytest.raises(ProviderError, match=r"in the middle|did not answer"):
        engine.generate([Request("A cat", PLANS["member"], GREEDY)])


def test_an_engine_can_be_closed_when_its_server_is_gone(connected, server: StandIn) -> None:
    engine = connected()
    engine.generate([Request("A cat", PLANS["soup"], GREEDY)])
    server.unload_status = 503
    engine.close()


def test_a_server_says_whether_it_works(connected, server: StandIn) -> None:
    client = connected().context.client
    client.require_alive()
    server.is_well = False
    with pytest.raises(ProviderError, match="status 503"):
        client.require_alive()


def test_a_server_without_an_expert_is_refused_by_name(connected, server: StandIn) -> None:
    del server.models["wide"]
    with pytest.raises(FormatError, match="has no model 'wide'"):
        connected()


def test_a_server_that_loads_no_adapters_is_told_how_to_start(connected, server: StandIn) -> None:
    server.may_load = False
    with pytest.raises(ProviderError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        connected().generate([Request("A cat", PLANS["soup"], GREEDY)])


def test_the_base_by_its_own_name_needs_no_adapter(connected, server: StandIn) -> None:
    engine = connected(base_as_adapter=False)
    engine.generate([Request("A cat", PLANS["base"], GREEDY)])
    assert server.loaded == []


def test_a_failing_server_ends_its_answer_alone_and_says_whether_to_try_again(
    connected, server: StandIn
) -> None:
    engine = connected(max_concurrent=1)
    session = engine.open_session()
    server.faults = [503]
    running_requests = [
        session.add_request(Request("A cat", PLANS["member"], GREEDY)) for _ in range(2)
    ]
    ends = {}
    while not session.is_idle:
        ends |= {running: token.finish for running, token in session.step() if token.finish}
    assert [ends[running] for running in running_requests] == [FAILED, "length"]
    assert "status 503" in str(running_requests[0].error)
    server.faults = [503]
    with pytest.raises(ProviderError, match="status 503") as failure:
        engine.generate([Request("A cat", PLANS["member"], GREEDY)])
    assert failure.value.is_retryable
