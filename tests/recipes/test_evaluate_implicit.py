"""Implicit soups draw from the explicit soup's distribution, and count what that costs."""

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.plan import output_soup_plan, parameter_soup_plan
from palate.core.protocols import Request, Sampling
from palate.models.chat import encode_prompt
from palate.models.logprobs import Scored, answer_log_probs, row_distributions
from palate.recipes.evaluate_implicit import ImplicitEngine
from palate.recipes.opened import open_library

PLAN = output_soup_plan((0.4, 0.3, 0.0))


@pytest.fixture(scope="module")
def opened(tiny_library):
    return open_library(tiny_library)


@pytest.fixture(scope="module")
def drawn(opened):
    engine = ImplicitEngine(opened.base, opened.bank)
    requests = [Request("hey", PLAN, Sampling(max_tokens=3), seed=k) for k in range(300)]
    return engine, engine.generate(requests)


def test_log_probabilities_are_those_of_the_explicit_soup(opened, drawn):
    _, answers = drawn
    context = tuple(encode_prompt(opened.base, "hey"))
    some = answers[:20]
    expected = answer_log_probs(
        opened.base,
        opened.bank,
        plans=[PLAN] * len(some),
        items=[Scored(context, answer.tokens) for answer in some],
    )
    for answer, values in zip(some, expected, strict=True):
        np.testing.assert_allclose(answer.log_probs, values.numpy(), atol=1e-4)


def test_first_tokens_are_as_frequent_as_the_explicit_soup_says(opened, drawn):
    _, answers = drawn
    context = tuple(encode_prompt(opened.base, "hey"))
    item = Scored(context, (5,))
    rows = row_distributions(opened.base, opened.bank, plan=PLAN, item=item)[:, 0].double().numpy()
    joint = np.array(PLAN.pool.coefficients) @ rows
    chances = np.exp(joint - np.logaddexp.reduce(joint))
    counts = np.bincount([answer.tokens[0] for answer in answers], minlength=len(chances))
    likely = chances > 0.01
    error = np.sqrt(chances * (1 - chances) * len(answers))
    assert np.all(np.abs(counts - len(answers) * chances)[likely] < 4.5 * error[likely])


def test_proposals_are_counted(drawn):
    engine, answers = drawn
    assert engine.n_tokens == sum(len(answer.tokens) for answer in answers)
    assert engine.n_proposals >= engine.n_tokens


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(opened, drawn):
    _, answers = drawn
    alone = ImplicitEngine(opened.base, opened.bank)
    request = Request("hey", PLAN, Sampling(max_tokens=3), seed=7)
    longer = Request("a much longer prompt", PLAN, Sampling(max_tokens=5), seed=1)
    assert alone.generate([longer, request])[1].tokens == answers[7].tokens


def test_plans_that_have_no_reference_are_refused(opened):
    engine = ImplicitEngine(opened.base, opened.bank)
    for plan in (parameter_soup_plan((1.0, 0.0, 0.0)), output_soup_plan((0.5, 0.5, 0.0))):
        with pytest.raises(InvalidInputError, match="reference"):
            engine.generate([Request("hey", plan, Sampling(max_tokens=2))])
