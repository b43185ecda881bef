"""Implicit soups draw from the explicit soup's distribution, and count what that costs."""

import numpy as np
import pytest
from scipy.stats import chi2

from palate.core.errors import InvalidInputError
from palate.core.plan import (
    Plan,
    Row,
    member_plan,
    mixture_plan,
    output_soup_plan,
    parameter_soup_plan,
    reference_plan,
)
from palate.core.protocols import Request, Sampling
from palate.models.chat import encode_prompt
from palate.models.logprobs import Scored, answer_log_probs
from palate.recipes.opened import open_library
from palate.recipes.soup_implicit import ImplicitEngine, implicit_rows

PLAN = output_soup_plan((0.8, -0.5, 0.6))
N_REQUESTS = 1500


@pytest.fixture(scope="module")
def opened(tiny_library):
    return open_library(tiny_library)


@pytest.fixture(scope="module")
def drawn(opened):
    engine = ImplicitEngine(opened.base, opened.bank)
    requests = [Request("a b c", PLAN, Sampling(max_tokens=2), seed=k) for k in range(N_REQUESTS)]
    return engine, engine.generate(requests)


def explicit(opened, before: tuple[int, ...]) -> np.ndarray:
    """Chances of every next token by the explicit soup, teacher-forced."""
    prompt = tuple(encode_prompt(opened.base, "a b c"))
    size = opened.base.model.config.vocab_size
    items = [Scored(prompt + before, (token,)) for token in range(size)]
    rows = answer_log_probs(opened.base, opened.bank, plans=[PLAN] * size, items=items)
    return np.exp([float(row) for row in rows])


def test_two_implicit_tokens_are_distributed_as_the_explicit_soup_says(opened, drawn):
    _, answers = drawn
    first = [answer.tokens[0] for answer in answers]
    common = int(np.bincount(first).argmax())  # the cache of every row moved on with this token
    second = [a.tokens[1] for a in answers if a.tokens[0] == common and len(a.tokens) == 2]
    for tokens, chances in (
        (first, explicit(opened, ())),
        (second, explicit(opened, (common,))),
    ):
        counts = np.bincount(tokens, minlength=len(chances)).astype(float)
        expected = len(tokens) * chances / chances.sum()
        kept = expected >= 5
        seen = np.append(counts[kept], counts[~kept].sum())
        wanted = np.append(expected[kept], expected[~kept].sum())
        statistic = float(((seen - wanted) ** 2 / wanted).sum())
        assert chi2.sf(statistic, len(seen) - 1) > 0.001


def test_log_probabilities_are_those_of_the_explicit_soup(opened, drawn):
    _, answers = drawn
    context = tuple(encode_prompt(opened.base, "a b c"))
    some = answers[:20]
    expected = answer_log_probs(
        opened.base,
        opened.bank,
        plans=[PLAN] * len(some),
        items=[Scored(context, answer.tokens) for answer in some],
    )
    for answer, values in zip(some, expected, strict=True):
        np.testing.assert_allclose(answer.log_probs, values.numpy(), atol=1e-4)


def test_proposals_are_counted(drawn):
    engine, answers = drawn
    assert engine.n_tokens == sum(len(answer.tokens) for answer in answers)
    assert engine.n_proposals >= engine.n_tokens
    assert 0 < engine.acceptance < 1


def test_the_base_accepts_everything_that_it_proposes(opened):
    engine = ImplicitEngine(opened.base, opened.bank)
    plan = reference_plan(n_experts=3)
    requests = [Request("d e", plan, Sampling(max_tokens=4), seed=k) for k in range(5)]
    answers = engine.generate(requests)
    assert (engine.acceptance, engine.n_fallbacks) == (1.0, 0)
    assert all(1 <= len(answer.tokens) <= 4 for answer in answers)


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(opened, drawn):
    _, answers = drawn
    alone = ImplicitEngine(opened.base, opened.bank)
    request = Request("a b c", PLAN, Sampling(max_tokens=2), seed=7)
    longer = Request("a much longer prompt", PLAN, Sampling(max_tokens=5), seed=1)
    assert alone.generate([longer, request])[1].tokens == answers[7].tokens


def test_the_reference_proposes_even_where_coefficients_sum_to_one():
    rows, weights = implicit_rows(output_soup_plan((0.25, 0.75, 0.0)))
    assert [row.coefficients for row in rows] == [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
    assert weights.tolist() == [0.0, 0.25, 0.75]
    rows, weights = implicit_rows(output_soup_plan((2.0, 0.0, 0.0)))
    assert weights.tolist() == [-1.0, 2.0]
    rows, weights = implicit_rows(parameter_soup_plan((0.5, 0.0, 0.0)))
    assert (rows[1].coefficients, weights.tolist()) == ((0.5, 0, 0), [0.0, 1.0])
    assert implicit_rows(reference_plan(n_experts=2))[1].tolist() == [1.0]


def test_plans_that_are_no_soup_are_refused(opened):
    engine = ImplicitEngine(opened.base, opened.bank)
    other = Plan((Row((1.0, 0.0, 0.0), context=(3, 4)),), member_plan(index=0, n_experts=3).pool)
    for plan in (mixture_plan(experts=(0, 1), n_experts=3), other):
        with pytest.raises(InvalidInputError, match="log-linear pool"):
            engine.generate([Request("hey", plan, Sampling(max_tokens=2))])
