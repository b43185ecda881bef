"""Rows that the server mixes: the same answers as in this process, and an error where it split."""

import numpy as np
import pytest

from engine_battery import generate_reported
from palate.core.errors import InvalidInputError, ProviderError
from palate.core.plan import output_soup_plan, parameter_soup_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.local import LocalEngine
from palate.engine.vllm.group_answer import linear_log_prob
from research.mixture.plans import mixture_plan
from vllm_stand_in import StandIn

GREEDY = SamplingParams(temperature=0.0, max_tokens=10)
WARM = SamplingParams(temperature=1.0, max_tokens=10)
MIXTURE = mixture_plan(experts=(0, 2), n_experts=3, shares=(0.3, 0.7))
SOUP = output_soup_plan((0.5, -0.3, 0.9))

ROUNDED = {"coefficient_step": 0.05, "rates": (0.1, 0.2, 0.1)}


@pytest.mark.parametrize("plan", [MIXTURE, SOUP], ids=["mixture", "output soup"])
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "drawn"])
def test_tokens_and_log_probs_are_those_of_the_engine_in_this_process(
    connected, local: LocalEngine, server: StandIn, plan, sampling
) -> None:
    requests = [Request(prompt, plan, sampling, 3) for prompt in ("A cat", "Why?")]
    served = generate_reported(connected(pools="server"), requests)
    for one, own in zip(served, local.generate(requests), strict=True):
        assert one.completion.tokens == own.tokens
        assert np.allclose(one.completion.log_probs, own.log_probs, atol=1e-4)
        assert one.report.is_exact
        assert one.report.n_calls == len(plan.rows)


def test_one_row_drawn_by_the_plugin_has_the_draws_of_this_process(
    connected, local: LocalEngine
) -> None:
    requests = [
        Request("A cat", parameter_soup_plan((0.5, -0.3, 0.9)), WARM, seed) for seed in range(4)
    ]
    served = generate_reported(connected(pools="server", draws="own"), requests)
    assert [one.completion.tokens for one in served] == [
        own.tokens for own in local.generate(requests)
    ]
    assert all(one.report.n_calls == 1 for one in served)


def test_a_linear_mixture_needs_no_lists(connected, local: LocalEngine, server: StandIn) -> None:
    engine = connected(pools="server", top_k=5, max_top_k=5)
    request = Request("A cat", MIXTURE, WARM)
    assert engine.generate([request])[0].tokens == local.generate([request])[0].tokens
    rows = [call for call in server.calls if "palate_group" in call.get("vllm_xargs", {})]
    assert [call["logprobs"] for call in rows] == [2, 2]


def test_leads_certify_as_many_tokens_as_where_the_server_draws(connected) -> None:
    request = Request("A cat", parameter_soup_plan((0.52, -0.28, 0.9)), GREEDY)
    accounts = [
        generate_reported(
            connected(coefficient_step=0.05, rates=(0.1, 0.2, 0.1), **how), [request]
        )[0].report
        for how in ({}, {"pools": "server", "draws": "own"}, {"draws": "own"})
    ]
    assert min(accounts[0].leads) > 0
    for account in accounts[1:]:
        assert account.leads == pytest.approx(accounts[0].leads, abs=1e-4)
        assert account.certified == accounts[0].certified


def test_what_the_rows_said_and_the_pools_most_probable_tokens_are_kept(
    connected, local: LocalEngine
) -> None:
    request = Request("A cat", MIXTURE, GREEDY)
    session = connected(pools="server").open_session()
    running = session.add_request(request, is_traced=True, n_top=3)
    while not session.is_idle:
        session.step()
    own = local.trace([request])[0]
    assert np.allclose(running.row_log_probs, own.row_log_probs, atol=1e-4)
    assert [token for token, _ in (top[0] for top in running.top)] == list(own.completion.tokens)
    assert {len(top) for top in running.top} == {3}


def test_what_the_plugin_cannot_do_is_pooled_here(connected, server: StandIn) -> None:
    engine = connected(pools="server")
    cut = SamplingParams(temperature=1.0, top_p=0.9, max_tokens=4)
    engine.generate([Request("A cat", MIXTURE, cut)])
    assert not any("palate_group" in call.get("vllm_xargs", {}) for call in server.calls)


@pytest.mark.parametrize("n_seats", [1])
def test_a_group_that_the_server_splits_is_ended_with_an_error(
    connected, server: StandIn, n_seats: int
) -> None:
    server.n_seats = n_seats
    engine = connected(pools="server", n_retries=1)
    with pytest.raises(ProviderError, match=r"split the 2 rows .* after 0 tokens") as failure:
        engine.generate([Request("A cat", MIXTURE, GREEDY)])
    assert failure.value.is_retryable
    groups = {call["vllm_xargs"]["palate_group"] for call in server.calls if "stream" in call}
    assert len(groups) == 2  # it was begun twice


def test_without_the_plugin_groups_are_refused_before_anything_is_asked(
    connected, server: StandIn
) -> None:
    server.has_plugin = False
    with pytest.raises(InvalidInputError, match="no plugin that mixes groups"):
        connected(pools="server")


def test_where_the_plugin_is_gone_no_row_is_left_to_itself(connected, server: StandIn) -> None:
    engine = connected(pools="server", n_retries=0)
    server.has_plugin = False  # it was restarted without
    with pytest.raises(ProviderError, match="was aborted"):
        engine.generate([Request("A cat", MIXTURE, WARM)])


def test_a_server_that_goes_away_ends_the_group_with_an_error(connected, server: StandIn) -> None:
    server.dies_after = 2
    with pytest.raises(ProviderError, match="in the middle of an answer"):
        connected(pools="server").generate([Request("A cat", MIXTURE, GREEDY)])


def test_the_log_probability_of_a_mixture_follows_from_its_rows() -> None:
    assert linear_log_prob(np.log([0.5, 0.1]), (0.25, 0.75)) == pytest.approx(np.log(0.2))
    assert linear_log_prob([-np.inf, -np.inf], (0.5, 0.5)) == -np.inf
