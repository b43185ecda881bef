"""Implicit soups draw from the explicit soup's distribution, and count what that costs."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from palate.core.errors import InvalidInputError
from palate.core.plan import (
    Plan,
    Pool,
    implicit_plan,
    output_soup_plan,
    parameter_soup_plan,
    reference_plan,
)
from palate.core.protocols import Request, SamplingParams
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, answer_log_probs
from palate.library.library import Library
from palate.models.chat import encode_prompt
from research.mixture.plans import mixture_plan
from research.soup.study_users import generate_counted

EXPLICIT = output_soup_plan((0.8, -0.5, 0.6))
PLAN = implicit_plan(EXPLICIT)
N_REQUESTS = 1500


@pytest.fixture(scope="module")
def library(tiny_library):
    return Library.load(tiny_library)


@pytest.fixture(scope="module")
def engine(library):
    return LocalEngine(library.base, library.bank)


@pytest.fixture(scope="module")
def drawn(engine):
    return generate_counted(
        engine,
        [Request("a b c", PLAN, SamplingParams(max_tokens=2), seed=k) for k in range(N_REQUESTS)],
    )


def explicit(library, plan: Plan, before: tuple[int, ...]) -> np.ndarray:
    """Chances of every next token by the explicit soup, teacher-forced."""
    prompt = tuple(encode_prompt(library.base, "a b c"))
    size = library.base.model.config.vocab_size
    items = [Scored(prompt + before, (token,)) for token in range(size)]
    rows = answer_log_probs(library.base, library.bank, plans=[plan] * size, items=items)
    return np.exp([float(row) for row in rows])


def chi_square_p(tokens, chances) -> float:
    counts = np.bincount(tokens, minlength=len(chances)).astype(float)
    expected = len(tokens) * chances / chances.sum()
    kept = expected >= 5
    seen = np.append(counts[kept], counts[~kept].sum())
    wanted = np.append(expected[kept], expected[~kept].sum())
    is_there = wanted > 0
    statistic = float(((seen - wanted)[is_there] ** 2 / wanted[is_there]).sum())
    return float(chi2.sf(statistic, int(is_there.sum()) - 1))


def test_two_implicit_tokens_are_distributed_as_the_explicit_soup_says(library, drawn):
    answers = drawn.completions
    first = [answer.tokens[0] for answer in answers]
    common = int(np.bincount(first).argmax())  # the cache of every row moved on with this token
    second = [a.tokens[1] for a in answers if a.tokens[0] == common and len(a.tokens) == 2]
    assert chi_square_p(first, explicit(library, EXPLICIT, ())) > 0.001
    assert chi_square_p(second, explicit(library, EXPLICIT, (common,))) > 0.001


def test_without_a_reference_the_row_of_the_largest_coefficient_proposes(library, engine):
    plan = output_soup_plan((0.25, 0.75, 0.0))  # of sum one: the reference has no row
    assert len(plan.rows) == 2
    requests = [
        Request("a b c", implicit_plan(plan), SamplingParams(max_tokens=1), seed=k)
        for k in range(N_REQUESTS)
    ]
    first = [answer.tokens[0] for answer in engine.generate(requests)]
    assert chi_square_p(first, explicit(library, plan, ())) > 0.001


def test_log_probabilities_are_those_of_the_explicit_soup(library, drawn):
    context = tuple(encode_prompt(library.base, "a b c"))
    some = drawn.completions[:20]
    expected = answer_log_probs(
        library.base,
        library.bank,
        plans=[EXPLICIT] * len(some),
        items=[Scored(context, answer.tokens) for answer in some],
    )
    for answer, values in zip(some, expected, strict=True):
        np.testing.assert_allclose(answer.log_probs, values.numpy(), atol=1e-4)


def test_proposals_are_counted(drawn):
    assert drawn.n_tokens == sum(len(answer.tokens) for answer in drawn.completions)
    assert drawn.n_proposals >= drawn.n_tokens
    assert 0 < drawn.n_tokens - drawn.n_fallbacks < drawn.n_proposals


def test_one_row_and_explicit_pools_propose_nothing(engine):
    plans = [reference_plan(n_experts=3), parameter_soup_plan((0.5, 0.0, 0.0)), EXPLICIT]
    for plan in plans[:2]:
        assert implicit_plan(plan) == plan
    found = generate_counted(
        engine, [Request("d e", plan, SamplingParams(max_tokens=4), seed=1) for plan in plans]
    )
    assert (found.n_proposals, found.n_fallbacks) == (0, 0)
    assert all(1 <= len(answer.tokens) <= 4 for answer in found.completions)


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(engine, drawn):
    request = Request("a b c", PLAN, SamplingParams(max_tokens=2), seed=7)
    longer = Request("a much longer prompt", PLAN, SamplingParams(max_tokens=5), seed=1)
    other = Request("d e", EXPLICIT, SamplingParams(max_tokens=5), seed=2)
    assert engine.generate([longer, request, other])[1].tokens == drawn.completions[7].tokens


def test_without_temperature_the_most_probable_token_is_taken(library, engine):
    greedy = SamplingParams(max_tokens=1, temperature=0.0)
    found = generate_counted(engine, [Request("a b c", PLAN, greedy)])
    assert found.completions[0].tokens[0] == int(np.argmax(explicit(library, EXPLICIT, ())))
    assert found.n_proposals == 0


def test_only_log_linear_pools_can_be_implicit():
    plan = mixture_plan(experts=(0, 1), n_experts=3)
    with pytest.raises(InvalidInputError, match="log_linear"):
        replace(plan, pool=replace(plan.pool, is_implicit=True))
    with pytest.raises(InvalidInputError, match="log_linear"):
        Pool("log_linear", (), controller="controller", is_implicit=True)


@pytest.mark.parametrize(
    "rule", [{"top_k": 5}, {"top_p": 0.9}, {"repetition_penalty": 1.2}, {"no_repeat_ngram_size": 2}]
)
def test_rules_on_the_pooled_distribution_are_refused_with_the_way_out(engine, rule):
    with pytest.raises(InvalidInputError, match="output-soup"):
        engine.generate([Request("hey", PLAN, SamplingParams(max_tokens=2, **rule))])
