import math

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.world.annotators import Annotator, Comparison, annotate, pair_up, sample_annotators

BETTER = "A desert fox lives in hot dry sand."  # concise: 8 words, 1.0
WORSE = (  # 15 words: (50 - 15) / 42 = 0.8333
    "Here is an answer. A desert fox lives in hot dry sand. That is all."
)
PROMPT = "What is a desert fox?"


@pytest.mark.parametrize(
    ("temperature", "guessing"), [(0.05, 0.0), (0.2, 0.0), (0.2, 0.4), (0.5, 0.1)]
)
def test_the_agreement_rate_is_that_of_bradley_terry_with_guesses(temperature, guessing):
    n = 4000
    comparisons = [Comparison(PROMPT, BETTER, WORSE), Comparison(PROMPT, WORSE, BETTER)] * (n // 2)
    pairs = annotate(
        "concise",
        comparisons,
        annotators=[Annotator(temperature, guessing)],
        generator=np.random.default_rng(7),
    )
    gap = 1.0 - (50 - 15) / 42
    expected = (1 - guessing) / (1 + math.exp(-gap / temperature)) + guessing / 2
    rate = np.mean([pair.chosen == BETTER for pair in pairs])
    assert abs(rate - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_several_annotators_agree_as_their_average_does():
    annotators = [Annotator(0.05, 0.0), Annotator(1.0, 0.5)]
    n = 4000
    pairs = annotate(
        "concise",
        [Comparison(PROMPT, BETTER, WORSE)] * n,
        annotators=annotators,
        generator=np.random.default_rng(8),
    )
    sharp = 1 / (1 + math.exp(-(7 / 42) / 0.05))
    blunt = 0.5 / (1 + math.exp(-(7 / 42))) + 0.25
    rate = np.mean([pair.chosen == BETTER for pair in pairs])
    assert abs(rate - (sharp + blunt) / 2) < 4 * math.sqrt(0.25 / n)


def test_pairs_name_their_objective_and_keep_both_answers():
    (pair,) = annotate(
        "friendly",
        [Comparison(PROMPT, BETTER, WORSE)],
        annotators=[Annotator(0.1, 0.0)],
        generator=np.random.default_rng(0),
    )
    assert {pair.chosen, pair.rejected} == {BETTER, WORSE}
    assert (pair.prompt, pair.objective, pair.id) == (PROMPT, "friendly", "friendly-00000")


def test_the_same_generator_state_gives_the_same_labels():
    comparisons = [Comparison(PROMPT, BETTER, WORSE)] * 50
    labels = [
        annotate(
            "concise",
            comparisons,
            annotators=sample_annotators(5, generator=np.random.default_rng(1)),
            generator=np.random.default_rng(2),
        )
        for _ in range(2)
    ]
    assert labels[0] == labels[1]


def test_annotators_differ_around_the_asked_temperature_and_guessing():
    users = sample_annotators(4000, generator=np.random.default_rng(3))
    temperatures = np.array([user.temperature for user in users])
    shares = np.array([user.guessing for user in users])
    assert np.median(temperatures) == pytest.approx(0.1, rel=0.03)
    assert np.log(temperatures).std() == pytest.approx(0.3, rel=0.05)
    assert shares.mean() == pytest.approx(0.1, abs=0.005)
    # Beta(2, 18): variance 2 * 18 / (20^2 * 21)
    assert shares.std() == pytest.approx(math.sqrt(36 / 8400), rel=0.05)


def test_all_pairs_of_different_answers_are_compared():
    found = pair_up(prompts=["p", "q"], answers=[["a", "b", "a"], ["c", "c"]])
    assert found == [Comparison("p", "a", "b"), Comparison("p", "b", "a")]


def test_bad_annotators_are_bad_input():
    for temperature, guessing in [(0.0, 0.1), (math.nan, 0.1), (0.1, 1.2), (0.1, -0.1)]:
        with pytest.raises(InvalidInputError, match="out of range"):
            Annotator(temperature, guessing)
    with pytest.raises(InvalidInputError, match="no annotator"):
        annotate("concise", [], annotators=[], generator=np.random.default_rng(0))
    with pytest.raises(InvalidInputError, match="0 annotators"):
        sample_annotators(0, generator=np.random.default_rng(0))
