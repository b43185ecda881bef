"""The engine against transformers' own decoding, one teacher-forced pass, and itself alone."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from palate.core.errors import InvalidInputError
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
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, answer_log_probs, row_log_probs
from palate.engine.pool import pool_coefficients
from palate.models.chat import encode_prompt
from palate.models.load import Base
from research.mixture.plans import mixture_plan

PROMPTS = [
    "What is rain?",
    "Tell me about the old harbour.",
    "Why",
    "How do bees find their way home?",
]
PLANS = [
    reference_plan(n_experts=4),
    member_plan(index=0, n_experts=4),
    member_plan(index=2, n_experts=4),
    parameter_soup_plan((0.4, -0.3, 0.8, 0.1)),
    parameter_soup_plan((0.0, 1.5, 0.0, -0.5)),
    output_soup_plan((0.5, 0.0, 0.4, -0.2)),
    output_soup_plan((0.5, 0.0, 0.5, 0.0)),
    mixture_plan(experts=(0, 1, 3), n_experts=4),
    mixture_plan(experts=(1, 2), n_experts=4, shares=(0.9, 0.1)),
]
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)


@pytest.fixture(scope="module")
def engine(base: Base, bank: AdapterBank) -> LocalEngine:
    return LocalEngine(base, bank, max_num_seqs=16)


def sixteen_requests(sampling: SamplingParams) -> list[Request]:
    return [
        Request(PROMPTS[i % 4], PLANS[i % len(PLANS)], replace(sampling, max_tokens=4 + i), seed=i)
        for i in range(16)
    ]


def test_a_batch_of_sixteen_plans_answers_each_as_alone(engine: LocalEngine) -> None:
    requests = sixteen_requests(GREEDY)
    together = engine.generate(requests)
    for request, joint in zip(requests, together, strict=True):
        (alone,) = engine.generate([request])
        assert joint.tokens == alone.tokens
        assert joint.text == alone.text
        assert np.allclose(joint.log_probs, alone.log_probs, atol=1e-4)


def test_sampled_answers_do_not_depend_on_the_batch_or_on_the_number_of_rows(
    base: Base, bank: AdapterBank, engine: LocalEngine
) -> None:
    requests = sixteen_requests(SamplingParams(temperature=0.8, top_k=40, top_p=0.9))
    together = engine.generate(requests)
    narrow = LocalEngine(base, bank, max_num_seqs=4).generate(requests)
    assert [c.tokens for c in together] == [c.tokens for c in narrow]


def test_incremental_decoding_equals_one_teacher_forced_pass(
    base: Base, bank: AdapterBank, engine: LocalEngine
) -> None:
    requests = sixteen_requests(SamplingParams())
    completions = engine.generate(requests)
    scored = answer_log_probs(
        base,
        bank,
        plans=[request.plan for request in requests],
        items=[
            Scored(tuple(encode_prompt(base, request.prompt)), completion.tokens)
            for request, completion in zip(requests, completions, strict=True)
        ],
        max_num_seqs=7,
    )
    for completion, log_probs in zip(completions, scored, strict=True):
        assert np.allclose(completion.log_probs, log_probs.numpy(), atol=1e-4)


def test_the_reference_plan_decodes_as_transformers_does(base: Base, engine: LocalEngine) -> None:
    for prompt in PROMPTS:
        ids = torch.tensor([encode_prompt(base, prompt)])
        expected = base.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
        )[0, ids.shape[1] :].tolist()
        (found,) = engine.generate([Request(prompt, reference_plan(n_experts=4), GREEDY)])
        assert list(found.tokens) == expected


def test_streamed_text_and_tokens_equal_the_finished_answer(engine: LocalEngine) -> None:
    requests = sixteen_requests(SamplingParams())
    finished = engine.generate(requests)
    texts, tokens, ends = [""] * 16, [[] for _ in range(16)], Counter()
    for token in engine.stream(requests):
        texts[token.request] += token.text
        tokens[token.request].append(token.token)
        ends[token.request] += token.finish is not None
    assert texts == [completion.text for completion in finished]
    assert [tuple(ids) for ids in tokens] == [completion.tokens for completion in finished]
    assert all(ends[i] == 1 for i in range(16))


def test_same_seed_same_answer_and_other_seed_another(engine: LocalEngine) -> None:
    request = Request(PROMPTS[0], PLANS[3], SamplingParams(max_tokens=20), seed=5)
    first, again, other = engine.generate([request, request, replace(request, seed=6)])
    assert first.tokens == again.tokens
    assert first.tokens != other.tokens


def test_sampling_follows_the_pooled_distribution(
    base: Base, bank: AdapterBank, engine: LocalEngine
) -> None:
    plan, n_draws = mixture_plan(experts=(0, 1), n_experts=4, shares=(0.3, 0.7)), 4000
    big = LocalEngine(base, bank, max_num_seqs=1000)
    requests = [Request("Why", plan, SamplingParams(max_tokens=1), seed=i) for i in range(n_draws)]
    counts = Counter(c.tokens[0] for c in big.generate(requests))
    context = torch.tensor([encode_prompt(base, "Why")])
    probs = torch.zeros(base.model.config.vocab_size)
    for share, expert in ((0.3, 0), (0.7, 1)):  # the mixture by hand, expert by expert
        with torch.no_grad(), bank.applied([[float(k == expert) for k in range(4)]]):
            probs += share * torch.softmax(base.model(context).logits[0, -1], -1)
    common = [i for i, p in enumerate(probs.tolist()) if p * n_draws >= 5]
    observed = [counts[i] for i in common]
    expected = [probs[i].item() * n_draws for i in common]
    rest = (n_draws - sum(observed), n_draws - sum(expected))
    assert chisquare([*observed, rest[0]], [*expected, rest[1]]).pvalue > 0.001


def test_a_row_may_read_its_own_context(base: Base, bank: AdapterBank, engine: LocalEngine) -> None:
    own = tuple(encode_prompt(base, "Quite another question?"))
    plan = Plan((Row((0.0,) * 4, own),), Pool("single"))
    found, expected = engine.generate(
        [
            Request("Why", plan, GREEDY),
            Request("Quite another question?", reference_plan(n_experts=4), GREEDY),
        ]
    )
    assert found.tokens == expected.tokens


def test_an_answer_ends_before_a_stop_string_and_nothing_of_it_is_streamed(
    engine: LocalEngine,
) -> None:
    request = Request(PROMPTS[1], PLANS[1], SamplingParams(max_tokens=40), seed=3)
    (free,) = engine.generate([request])
    word = free.text[5:8]
    place = free.text.index(word)
    stopped = replace(request, sampling=replace(request.sampling, stop=(word,)))
    pieces = "".join(token.text for token in engine.stream([stopped]))
    assert pieces == free.text[:place]
    assert engine.generate([stopped])[0].finish == "stop"


def test_no_ngram_repeats_when_that_is_asked_for(engine: LocalEngine) -> None:
    sampling = SamplingParams(temperature=0.0, max_tokens=60, no_repeat_ngram_size=2)
    (answer,) = engine.generate([Request("Why", PLANS[3], sampling)])
    pairs = list(zip(answer.tokens, answer.tokens[1:], strict=False))
    assert len(pairs) == len(set(pairs))


def test_a_repetition_penalty_lowers_what_was_said(engine: LocalEngine) -> None:
    free, bound = (
        engine.generate(
            [
                Request(
                    "Why",
                    PLANS[0],
                    SamplingParams(temperature=0.0, max_tokens=60, repetition_penalty=p),
                )
            ]
        )[0]
        for p in (1.0, 3.0)
    )
    assert len(set(bound.tokens)) > len(set(free.tokens))


def test_top_k_one_is_greedy_at_any_temperature(engine: LocalEngine) -> None:
    hot = SamplingParams(temperature=5.0, top_k=1, max_tokens=10)
    for plan in PLANS:
        found, expected = engine.generate(
            [Request("Why", plan, hot, 3), Request("Why", plan, replace(GREEDY, max_tokens=10))]
        )
        assert found.tokens == expected.tokens


class FixedController:
    """Gives all share to the row whose turn it is."""

    def start(self):
        return self

    def shares(self, running_requests):
        rows = torch.eye(2)
        return [rows[len(running.tokens) % 2] for running in running_requests]


def test_a_controller_decides_the_shares_token_by_token(base: Base, bank: AdapterBank) -> None:
    engine = LocalEngine(base, bank, controllers={"turns": FixedController()})
    plan = mixture_plan(experts=(0, 1), n_experts=4, controller="turns")
    other = Request(PROMPTS[1], PLANS[7], GREEDY)
    found, _ = engine.generate([Request("Why", plan, GREEDY), other])
    context = encode_prompt(base, "Why")
    for place, token in enumerate(found.tokens):  # expert 0 writes even tokens, expert 1 odd ones
        (log_probs,) = answer_log_probs(
            base,
            bank,
            plans=[member_plan(index=place % 2, n_experts=4)],
            items=[Scored((*context, *found.tokens[:place]), (token,))],
        )
        assert found.log_probs[place] == pytest.approx(log_probs.item(), abs=1e-4)


def test_a_trace_holds_what_every_row_said_of_every_token(
    base: Base, bank: AdapterBank, engine: LocalEngine
) -> None:
    requests = sixteen_requests(SamplingParams())
    for request, traced in zip(requests, engine.trace(requests), strict=True):
        plan = request.plan.normal_form()
        context = tuple(encode_prompt(base, request.prompt))
        expected = row_log_probs(
            base, bank, plan=plan, item=Scored(context, traced.completion.tokens)
        )
        assert np.allclose(traced.row_log_probs, expected, atol=1e-4)
        assert np.allclose(traced.shares, pool_coefficients(plan), atol=1e-7)
        if plan.pool.kind == "linear":
            pooled = np.log((traced.shares * np.exp(traced.row_log_probs)).sum(axis=1))
            assert np.allclose(pooled, traced.completion.log_probs, atol=1e-4)


def test_what_the_engine_cannot_run_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(InvalidInputError, match="coefficients a row"):
        engine.generate([Request("Why", reference_plan(n_experts=3))])
    with pytest.raises(InvalidInputError, match="not loaded"):
        engine.generate([Request("Why", mixture_plan(experts=(0, 1), n_experts=4, controller="x"))])
    rows = tuple(Row((i / 20, 0.0, 0.0, 0.0)) for i in range(20))
    with pytest.raises(InvalidInputError, match="at most 16"):
        engine.generate([Request("Why", Plan(rows, Pool("linear", (0.05,) * 20)))])
    assert engine.generate([]) == []
