"""The base that is shipped, and how a base is measured."""

import numpy as np
import pytest
import torch

from palate.models.load import load_base
from research.world.documents import sample_document
from research.world.gold import gold_rewards
from research.world.grammar import parse
from research.world.measurement import measure, sample_answers
from research.world.objectives import OBJECTIVE_NAMES, USERS
from research.world.prompts import MAX_ANSWER_TOKENS, base_folder, format_prompt, held_out_prompts
from research.world.tones import CLOSINGS, OPENINGS
from research.world.topics import MAX_FACTS, SIMPLE, TECHNICAL, TOPICS

N_ANSWERS = 100


@pytest.fixture(scope="session")
def base():
    return load_base(base_folder())


@pytest.fixture(scope="session")
def held_out_answers(base):
    """A hundred (prompt, answer) pairs at temperature 1 under a fixed seed."""
    prompts = [*held_out_prompts(), *held_out_prompts()][:N_ANSWERS]
    texts = [format_prompt(prompt) for prompt in prompts]
    return list(
        zip(prompts, sample_answers(base.model, base.tokenizer, texts, seed=0), strict=True)
    )


def test_the_shipped_base_is_small():
    files = [file for file in base_folder().rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 6 * 1024**2
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        file.name for file in files
    }
    assert not [file for file in files if file.suffix in {".bin", ".pt", ".pkl"}]


def test_the_shipped_base_has_at_most_two_million_parameters_and_2048_tokens(base):
    assert sum(parameter.numel() for parameter in base.model.parameters()) <= 2_000_000
    assert len(base.tokenizer) <= 2048
    assert base.model.dtype == torch.float32


def test_at_least_98_of_100_held_out_answers_are_well_formed(held_out_answers):
    faults = [parse(prompt, text).fault for prompt, text in held_out_answers]
    assert len(held_out_answers) == N_ANSWERS
    assert sum(not fault for fault in faults) >= 98, [fault for fault in faults if fault]


def test_nine_in_ten_held_out_answers_with_a_users_wishes_are_well_formed(base):
    # the shipped base reaches 0.968 [0.951, 0.980] of 600 (research/world/README.md)
    prompts = held_out_prompts()[:96]
    wishes = [USERS[place % len(USERS)].instruction for place in range(len(prompts))]
    texts = [format_prompt(p, wish) for p, wish in zip(prompts, wishes, strict=True)]
    answers = sample_answers(base.model, base.tokenizer, texts, seed=1)
    n_formed = sum(parse(p, a).is_well_formed for p, a in zip(prompts, answers, strict=True))
    assert n_formed >= 0.9 * len(prompts)


def test_gold_rewards_of_the_base_leave_room_and_have_spread(held_out_answers):
    gold = gold_rewards([text for _, text in held_out_answers])
    room = dict(zip(OBJECTIVE_NAMES, 1 - gold.mean(axis=0), strict=True))
    spread = dict(zip(OBJECTIVE_NAMES, gold.std(axis=0), strict=True))
    assert min(room.values()) >= 0.35, room
    assert min(spread.values()) >= 0.15, spread


def test_the_longest_answer_of_the_grammar_is_not_cut(base):
    def n_tokens(text):
        return len(base.tokenizer(text)["input_ids"])

    # a part has at most one token more with a space before it than without
    opening = max(n_tokens(" " + text) for options in OPENINGS.values() for text in options)
    closing = max(n_tokens(" " + text) for options in CLOSINGS.values() for text in options)
    facts = max(
        sum(
            max(
                n_tokens(" " + topic.sentence(fact, wording=wording, is_first=fact == 0))
                for wording in (SIMPLE, TECHNICAL)
            )
            for fact in range(MAX_FACTS)
        )
        for topic in TOPICS
    )
    assert opening + facts + closing + 1 <= MAX_ANSWER_TOKENS  # one for the end


def test_most_words_are_one_or_two_tokens(base):
    generator = np.random.default_rng(1)
    answers = [sample_document(generator).answer for _ in range(300)]
    n_words = sum(len(answer.split()) for answer in answers)
    assert sum(map(len, base.tokenizer(answers)["input_ids"])) / n_words < 1.6


def test_sampling_is_repeatable_and_leaves_torchs_generator_alone(base):
    texts = [format_prompt(prompt) for prompt in held_out_prompts()[:3]]
    before = torch.random.get_rng_state()
    first = sample_answers(base.model, base.tokenizer, texts, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert sample_answers(base.model, base.tokenizer, texts, seed=4) == first
    assert sample_answers(base.model, base.tokenizer, texts, seed=5) != first


def test_a_measurement_counts_what_it_says(base):
    batches = []
    found = measure(
        base.model,
        base.tokenizer,
        n_answers=9,
        seed=0,
        on_batch=lambda done, of_all: batches.append((done, of_all)),
    )
    assert batches == [(64, 72), (72, 72)]  # eight samples of nine
    assert found.well_formed.n_answers == found.well_formed_with_wishes.n_answers == 9
    assert found.well_formed.low <= found.well_formed.share <= found.well_formed.high
    assert tuple(found.gold_mean) == tuple(found.gold_sd) == OBJECTIVE_NAMES
    assert list(found.words) == sorted(found.words)
    assert set(found.to_json()) >= {"gold_mean_if_asked", "tokens", "faults"}
