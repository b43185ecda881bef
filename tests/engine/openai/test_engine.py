"""Pools of black boxes: bounds hold, failures are handled as set, samples are exact."""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy.stats import chisquare

from engine_battery import Reported, generate_reported
from palate.core.errors import InvalidInputError, NotCertifiedError, ProviderError
from palate.core.plan import output_soup_plan, parameter_soup_plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.openai.endpoint import OpenAISettings
from palate.engine.openai.engine import OpenAIEngine
from palate.models.load import Base
from research.mixture.plans import mixture_plan

TOKENS = [70, 71, 72, 73, 74, 75]  # letters; nothing else has any probability to speak of
N_VOCAB = 259
NAMES = ("a", "b", "c")
SHARES = (0.5, 0.3, 0.2)
PLAN = mixture_plan(experts=(0, 1, 2), n_experts=3, shares=SHARES)
GREEDY = SamplingParams(temperature=0.0, max_tokens=8)
ONE = SamplingParams(max_tokens=1)


@dataclass
class Box:
    """A black box whose next-token distribution depends on the last token only."""

    name: str
    table: np.ndarray  # [last token, next token], over TOKENS
    fails_after: int = 10_000
    calls: list[int] = field(default_factory=list)

    def next_log_probs(self, context, *, top_k):
        row = self.row(context)
        listed = {token: math.log(row[k]) for k, token in enumerate(TOKENS)}
        best = sorted(listed, key=lambda token: -listed[token])[:top_k]
        rest = {token: -1e9 for token in range(N_VOCAB) if token not in listed}
        return {t: listed[t] for t in best} | (rest if top_k >= N_VOCAB else {})

    def sample(self, context, *, seed):
        row = self.row(context)
        return TOKENS[int(np.random.default_rng(seed).choice(len(TOKENS), p=row))]

    def stream(self, context, sampling, *, seed, n_top):
        for _ in range(sampling.max_tokens):
            token = TOKENS[int(self.row(context).argmax())]
            context = [*context, token]
            yield token, -0.5, {}

    def row(self, context):
        self.calls.append(len(context))
        if len(self.calls) > self.fails_after:
            raise ProviderError(f"The server of {self.name!r} is gone.", is_retryable=True)
        return self.table[context[-1] % len(TOKENS)]


def boxes(*, seed: int = 4, **options) -> list[Box]:
    generator = np.random.default_rng(seed)
    tables = generator.dirichlet(np.full(len(TOKENS), 0.5), size=(3, len(TOKENS)))
    return [Box(name, table, **options) for name, table in zip(NAMES, tables, strict=True)]


@pytest.fixture
def mix(base: Base):
    """Makes engines over boxes."""
    opened: list[OpenAIEngine] = []

    def make(experts: list[Box], **changes) -> OpenAIEngine:
        endpoints = {name: {"url": "http://x/v1", "model": name} for name in NAMES}
        values = {"endpoints": endpoints, "top_k": N_VOCAB, **changes}
        settings = OpenAISettings.checked(values, source="test")
        by_name = dict(zip(NAMES, experts, strict=False))
        opened.append(OpenAIEngine(settings, base, NAMES, by_name))
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()


def ask(engine: OpenAIEngine, *, prompt="A", sampling=GREEDY, plan=PLAN, seed=0) -> Reported:
    return generate_reported(engine, [Request(prompt, plan, sampling, seed)])[0]


def exact_row(experts: list[Box], last: int) -> np.ndarray:
    rows = [box.table[last % len(TOKENS)] for box in experts]
    return np.array(SHARES) @ np.array(rows)


def last_token(base: Base, prompt: str) -> int:
    return base.tokenizer(prompt)["input_ids"][-1]


def test_whole_lists_give_the_exact_greedy_answer_and_certify_it(mix, base: Base) -> None:
    experts = boxes()
    answer = ask(mix(experts))
    last = last_token(base, "A")
    for token in answer.completion.tokens:
        assert token == TOKENS[int(exact_row(experts, last).argmax())]
        last = token
    assert np.allclose(answer.report.list_bounds, 0.0, atol=1e-9)
    assert answer.report.is_exact
    assert all(answer.report.certified)
    assert answer.report.n_calls == 3 * len(answer.completion.tokens)


def test_tokens_certified_from_short_lists_are_those_of_the_exact_mixture(mix, base: Base) -> None:
    n_certified = n_wrong = 0
    for k in (1, 2, 3, 4):
        for place, prompt in enumerate("ABCDEFGH"):
            experts = boxes(seed=place)
            answer = ask(mix(experts, top_k=k), prompt=prompt)
            last = last_token(base, prompt)
            for token, holds in zip(answer.completion.tokens, answer.report.certified, strict=True):
                is_right = token == TOKENS[int(exact_row(experts, last).argmax())]
                assert is_right or not holds
                n_certified += holds
                n_wrong += not is_right
                last = token
    assert n_certified > 20
    assert n_wrong > 0  # so the certificate had something to refuse


@pytest.mark.parametrize(("top_k", "n_calls"), [(N_VOCAB, 3), (0, 1)])
def test_samples_follow_the_mixture_from_lists_or_with_one_call(
    mix, base: Base, top_k: int, n_calls: int
) -> None:
    experts = boxes()
    engine = mix(experts, top_k=top_k)
    answers = generate_reported(engine, [Request("A", PLAN, ONE, seed) for seed in range(1500)])
    counts = Counter(answer.completion.tokens[0] for answer in answers)
    expected = exact_row(experts, last_token(base, "A"))
    observed = [counts[token] for token in TOKENS]
    assert chisquare(observed, expected * (1500 / expected.sum())).pvalue > 0.001
    assert all(a.report.n_calls == n_calls and a.report.is_exact for a in answers)


def test_lists_above_the_budget_are_requested_again_and_longer_or_the_answer_fails(mix) -> None:
    answer = ask(mix(boxes(), top_k=1, budget=0.05, max_top_k=N_VOCAB))
    assert max(answer.report.list_bounds) <= 0.05
    assert answer.report.n_calls > 3 * len(answer.completion.tokens)
    with pytest.raises(NotCertifiedError, match=r"lists of 2, but the budget is 0.01"):
        ask(mix(boxes(), top_k=1, budget=0.01, max_top_k=2))


@pytest.mark.parametrize("top_k", [N_VOCAB, 0])
def test_experts_below_the_threshold_are_not_called_and_their_share_is_the_bound(
    mix, top_k: int
) -> None:
    experts = boxes()
    answer = ask(mix(experts, skip_below=0.25, top_k=top_k), sampling=SamplingParams(max_tokens=8))
    assert experts[2].calls == []
    assert np.allclose(answer.report.list_bounds, 0.2)
    assert not any(answer.report.certified)


@pytest.mark.parametrize("top_k", [N_VOCAB, 0])
def test_an_expert_that_dies_is_dropped_with_a_note_and_a_bound(mix, top_k: int) -> None:
    for seed in range(50):
        experts = boxes()
        experts[1].fails_after = 2
        engine = mix(experts, on_failure="drop", top_k=top_k)
        answer = ask(engine, sampling=SamplingParams(max_tokens=8), seed=seed)
        if answer.report.notes:
            break
    bounds = np.array(answer.report.list_bounds)
    (note,) = answer.report.notes
    n_before = int(note.split("dropped after ")[1].split()[0])
    assert note.startswith("Expert 'b' was dropped after")
    assert n_before == 2 or top_k == 0
    assert np.allclose(bounds[:n_before], 0.0, atol=1e-9)
    assert np.allclose(bounds[n_before:], 0.3)


def test_or_the_answer_fails_and_reports_how_far_it_got(mix) -> None:
    experts = boxes()
    experts[0].fails_after = 0
    with pytest.raises(ProviderError, match=r"failed after 0 tokens.*'a' is gone") as caught:
        ask(mix(experts))
    assert caught.value.is_retryable


def test_a_failed_row_of_an_output_soup_fails_the_answer(mix) -> None:
    experts = boxes()
    experts[1].fails_after = 2
    with pytest.raises(ProviderError, match=r"failed after 2 tokens.*'b' is gone"):
        ask(mix(experts, on_failure="drop"), plan=output_soup_plan(SHARES))


def test_with_no_expert_left_the_answer_fails(mix) -> None:
    with pytest.raises(ProviderError, match="No expert with a share is left"):
        ask(mix(boxes(fails_after=0), on_failure="drop"))


REFUSED = {
    "a soup in one pass": ({"plan": parameter_soup_plan((0.5, 0.5, 0.0))}, {}, "a 0.5, b 0.5"),
    "a fraction of an expert": ({"plan": parameter_soup_plan((0.5, 0.0, 0.0))}, {}, "a 0.5"),
    "no endpoint": ({"plan": reference_plan(n_experts=3)}, {}, "needs 'base', which has no"),
    "another bank": ({"plan": reference_plan(n_experts=2)}, {}, "2 coefficients a row"),
    "a controller": (
        {"plan": mixture_plan(experts=(0, 1), n_experts=3, controller="boss")},
        {},
        "controller 'boss', which is not loaded",
    ),
    "top_k of an endpoint": (
        {"plan": parameter_soup_plan((1, 0, 0)), "sampling": SamplingParams(top_k=3)},
        {},
        "know no top_k",
    ),
    "greedy samples": ({}, {"top_k": 0}, "at temperature 1 without truncation"),
    "signed short lists": (
        {"plan": output_soup_plan((0.8, 0.5, -0.3))},
        {"top_k": 20},
        "whole vocabularies, but top_k is 20 of 259",
    ),
}


@pytest.mark.parametrize(("request_", "changes", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_plans_that_cannot_be_executed_are_refused_in_a_sentence(
    mix, request_: dict, changes: dict, sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        ask(mix(boxes(), **changes), **request_)


def test_an_endpoint_that_ends_too_early_is_an_error(mix) -> None:
    experts = boxes()
    experts[0].stream = lambda *_, **__: iter([(70, -0.1, {})])
    with pytest.raises(ProviderError, match="ended an answer after 1 of 8 tokens"):
        ask(mix(experts), plan=parameter_soup_plan((1, 0, 0)))
