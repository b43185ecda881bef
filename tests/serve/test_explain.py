"""Who wrote which token, against the definition worked out by hand."""

import numpy as np
import pytest
import torch

from palate.core.plan import (
    Plan,
    Pool,
    PoolKind,
    Row,
    member_plan,
    output_soup_plan,
    parameter_soup_plan,
    reference_plan,
)
from palate.core.protocols import Request, SamplingParams
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored
from palate.library.explain import soup_authors
from palate.library.features import features_of
from palate.library.library import Library
from palate.models.chat import encode_prompt
from palate.serve.explain import explain, mixture_authors
from research.mixture.plans import mixture_plan

PLANS = {
    "base": reference_plan(n_experts=3),
    "member": member_plan(index=1, n_experts=3),
    "soup": parameter_soup_plan((0.8, 0.0, -0.5)),
    "output soup": output_soup_plan((0.8, 0.0, -0.5)),
    "mixture": mixture_plan(experts=(0, 2), n_experts=3, shares=(0.3, 0.7)),
}


def log_probs(opened: Library, context: list[int], coefficients: list[float]) -> np.ndarray:
    """Next-token log-probabilities after every prefix of the context, by one plain pass."""
    with torch.no_grad(), opened.bank.applied([coefficients]):
        logits = opened.base.model(torch.tensor([context])).logits[0]
    return torch.log_softmax(logits.double(), -1).numpy()


@pytest.mark.parametrize("name", list(PLANS))
def test_shares_sum_to_one_and_name_those_who_take_part(opened: Library, name: str) -> None:
    session = opened.engine.open_session()
    request = Request("Why is it so?", PLANS[name], SamplingParams(max_tokens=10), seed=2)
    running = session.add_request(request, is_traced=True)
    while not session.is_idle:
        session.step()
    story = explain(opened.base, opened.bank, running)
    names = {
        "base": {"base"},
        "member": {"short"},
        "soup": {"base", "kind", "plain"},
        "output soup": {"base", "kind", "plain"},
        "mixture": {"kind", "plain"},
    }[name]
    assert story
    for token, log_prob in zip(story, running.log_probs, strict=False):
        assert set(token["wrote"]) == names
        assert sum(token["wrote"].values()) == pytest.approx(1.0)
        assert min(token["wrote"].values()) >= 0.0
        assert token["log_prob"] == log_prob


class Halves:
    """Gives both rows half."""

    def start(self) -> "Halves":
        return self

    def shares(self, running_requests: list[object]) -> list[torch.Tensor]:
        return [torch.tensor([0.5, 0.5]) for _ in running_requests]


@pytest.mark.parametrize("kind", ["linear", "log_linear"])
def test_rows_of_a_controlled_mixture_have_the_name_of_their_leading_expert(
    opened: Library, kind: PoolKind
) -> None:
    blended = (Row((1.0, 0.0, 0.5)), Row((0.5, 0.0, 1.0)))
    engine = LocalEngine(opened.base, opened.bank, controllers={"halves": Halves()})
    session = engine.open_session()
    plan = Plan(blended, Pool(kind, controller="halves"))
    request = Request("Why is it so?", plan, SamplingParams(max_tokens=6), seed=2)
    running = session.add_request(request, is_traced=True)
    while not session.is_idle:
        session.step()
    story = explain(opened.base, opened.bank, running)
    assert story
    for token in story:
        assert set(token["wrote"]) == {"kind", "plain"}
        assert sum(token["wrote"].values()) == pytest.approx(1.0)


def test_of_a_mixture_the_share_is_the_probability_that_a_row_wrote_the_token() -> None:
    # by hand: asked 1/4 and 3/4, probabilities 0.8 and 0.1: 0.2 against 0.075
    found = mixture_authors(np.array([[0.25, 0.75]]), np.log([[0.8, 0.1]]))
    assert found == pytest.approx(np.array([[0.2 / 0.275, 0.075 / 0.275]]))


def test_of_an_output_soup_the_lifts_follow_their_definition(opened: Library) -> None:
    context = encode_prompt(opened.base, "Why")
    answer = encode_prompt(opened.base, "Who knows")[1:]
    item = Scored(tuple(context), tuple(answer))
    authors, shares = soup_authors(opened.base, opened.bank, plan=PLANS["output soup"], item=item)
    assert authors == ["base", opened.bank.names[0], opened.bank.names[2]]
    assert shares.sum(axis=1) == pytest.approx(1.0)
    whole = context + answer
    zero, first, third = (
        log_probs(opened, whole, row) for row in ([0, 0, 0.0], [1, 0, 0.0], [0, 0, 1.0])
    )
    for place, token in enumerate(answer):
        at = len(context) + place - 1
        tilts = [first[at] - zero[at], third[at] - zero[at]]
        soup = np.exp(zero[at] + 0.8 * tilts[0] - 0.5 * tilts[1])
        soup /= soup.sum()
        lifts = [c * (t[token] - soup @ t) for c, t in zip((0.8, -0.5), tilts, strict=True)]
        kept = np.maximum(lifts, 0.0)
        expected = (1 - np.exp(-kept.sum())) * kept / max(kept.sum(), 1e-300)
        assert shares[place, 1:] == pytest.approx(expected, abs=1e-4)


def test_features_are_beta_times_what_the_experts_add(opened: Library) -> None:
    context = encode_prompt(opened.base, "Why")
    answer = encode_prompt(opened.base, "So it is")[1:]
    (found,) = features_of(opened.base, opened.bank, beta=0.1, context=context, answers=[answer])
    whole = context + answer
    places = [(len(context) + k - 1, token) for k, token in enumerate(answer)]
    zero = log_probs(opened, whole, [0.0, 0.0, 0.0])
    for expert in range(3):
        own = log_probs(opened, whole, [float(k == expert) for k in range(3)])
        total = sum(own[at][token] - zero[at][token] for at, token in places)
        assert found[expert] == pytest.approx(0.1 * total, abs=1e-4)
