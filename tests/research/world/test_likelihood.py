import math
from itertools import combinations, product

import numpy as np
import pytest

from palate.models.load import load_base
from research.world.grammar import Answer, sample_answer, sample_style
from research.world.likelihood import answer_log_prob, excess_nats
from research.world.prompts import base_folder
from research.world.tones import CLOSINGS, OPENINGS
from research.world.topics import (
    HELD_OUT_TOPICS,
    MAX_FACTS,
    SIMPLE,
    TECHNICAL,
    TOPICS,
    TRAIN_TOPICS,
)


def ends_of(sentences):
    return [(tone, sentence) for tone, options in sentences.items() for sentence in options]


def tellings():
    for n_facts in range(1, MAX_FACTS + 1):
        for facts in combinations(range(MAX_FACTS), n_facts):
            for wordings in product((SIMPLE, TECHNICAL), repeat=n_facts):
                yield tuple(zip(facts, wordings, strict=True))


def test_the_probabilities_of_all_answers_to_a_topic_sum_to_one():
    ends = list(product(ends_of(OPENINGS), ends_of(CLOSINGS)))
    chance = [
        [math.exp(answer_log_prob(Answer(TOPICS[0], facts, *pair))) for pair in ends]
        for facts in tellings()
    ]
    assert np.shape(chance) == (3**5 - 1, 13 * 13)
    assert np.sum(chance) == pytest.approx(1.0, abs=1e-9)


def test_one_probability_by_hand():
    # one fact of five, told in simple words; friendly opening, nothing at the end
    answer = Answer(
        TOPICS[0], ((2, SIMPLE),), ("friendly", OPENINGS["friendly"][0]), ("neutral", "")
    )
    simple = 0.35 * 0.95 + 0.3 * 0.5 + 0.35 * 0.05
    tones = (1 / 3) * 0.7 * 0.3
    nothing = 0.5 + 0.5 / 3
    by_hand = (1 / 5) * (1 / 5) * simple * tones * (1 / 5) * nothing
    assert math.exp(answer_log_prob(answer)) == pytest.approx(by_hand)


def test_drawn_answers_are_as_frequent_as_they_are_probable():
    generator = np.random.default_rng(0)
    n = 20_000
    drawn = [sample_answer(TOPICS[0], sample_style(generator), generator) for _ in range(n)]
    bare = Answer(TOPICS[0], ((0, SIMPLE),), ("neutral", ""), ("neutral", ""))
    expected = math.exp(answer_log_prob(bare))
    found = np.mean([answer == bare for answer in drawn])
    assert abs(found - expected) < 4 * math.sqrt(expected / n)


def test_the_shipped_base_is_as_near_to_the_grammar_on_held_out_topics_as_on_others():
    base = load_base(base_folder())
    excess = [
        excess_nats(
            base.model,
            base.tokenizer,
            topics=topics,
            n_answers=256,
            generator=np.random.default_rng(1),
        )
        for topics in (TRAIN_TOPICS, HELD_OUT_TOPICS)
    ]
    errors = [values.std() / math.sqrt(256) for values in excess]
    assert all(values.mean() > -4 * error for values, error in zip(excess, errors, strict=True))
    assert excess[1].mean() < 0.1
    assert abs(excess[1].mean() - excess[0].mean()) < 4 * math.hypot(*errors)
