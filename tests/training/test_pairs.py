"""Pairs: which answers are compared, and in which order."""

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import PreferencePair
from palate.models.chat import encode_prompt, format_messages
from palate.rewards.rows import texts_of
from palate.training.anchors import Anchor
from palate.training.pairs import (
    Pairs,
    Sequences,
    encode_human_pairs,
    label_pairs,
    pairs_of_rollouts,
    training_order,
)
from palate.training.rollouts import Rollout

NAMES = ("letters", "short")
LETTERS = Anchor("letters", NAMES, (1.0, 0.0))


def rollout(prompt, token, reward):
    return Rollout(prompt, "x", (token,), -1.0, (reward, 0.5), "stop")


def test_pairs_join_different_answers_to_one_prompt_with_the_gap_of_their_rewards():
    rows = [rollout("p", 1, 0.25), rollout("q", 2, 0.5), rollout("p", 3, 1.0), rollout("p", 3, 1.0)]
    pairs = pairs_of_rollouts(rows, LETTERS, n_per_prompt=9, seed=0)
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(0, 2), (0, 3)]
    assert pairs.reward_gaps.tolist() == [-0.75, -0.75]


def test_all_anchors_get_the_same_pairs_and_the_limit_holds():
    rows = [rollout("p", token, token / 10) for token in range(6)]
    one = pairs_of_rollouts(rows, LETTERS, n_per_prompt=4, seed=0)
    other = pairs_of_rollouts(rows, Anchor("less", NAMES, (-1.0, 0.0)), n_per_prompt=4, seed=0)
    assert len(one) == 4
    assert np.array_equal(one.first, other.first)
    assert np.array_equal(one.second, other.second)
    assert np.allclose(one.reward_gaps, -other.reward_gaps)


def test_the_widest_pairs_are_those_whose_rewards_lie_farthest_apart():
    rows = [rollout("p", token, reward) for token, reward in enumerate((0.5, 0.9, 0.1, 0.6))]
    pairs = pairs_of_rollouts(rows, LETTERS, n_per_prompt=2, seed=0, is_widest=True)
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(1, 2), (2, 3)]
    assert pairs.reward_gaps.tolist() == pytest.approx([0.8, -0.5])


def test_rollouts_without_two_different_answers_are_refused():
    with pytest.raises(InvalidInputError, match="no two different answers"):
        pairs_of_rollouts(
            [rollout("p", 1, 0.1), rollout("q", 2, 0.1)], LETTERS, n_per_prompt=2, seed=0
        )


def test_labels_follow_the_stated_log_odds_and_keep_the_pair():
    n = 20_000
    pairs = Pairs(np.zeros(n, int), np.ones(n, int), np.full(n, 0.1))
    found = label_pairs(pairs, gain=10.0, generator=np.random.default_rng(0))
    # log-odds 1: 0.7311; three standard errors are 0.0094
    assert np.mean(found.first == 0) == pytest.approx(1 / (1 + np.exp(-1)), abs=0.0094)
    assert np.all(found.first + found.second == 1)
    assert np.array_equal(found.reward_gaps, np.where(found.first == 0, 0.1, -0.1))


def test_training_visits_pairs_in_whole_passes_and_batches_of_like_length():
    lengths = np.random.default_rng(0).integers(10, 100, size=64)
    order = training_order(lengths, n_batches=32, batch=4, generator=np.random.default_rng(1))
    assert sorted(order) == sorted([*range(64)] * 2)
    batches = lengths[order].reshape(32, 4)
    mixed = lengths[np.random.default_rng(1).permutation(64)].reshape(16, 4)
    # padded tokens per batch: sorted stretches waste far less
    assert (batches.max(axis=1) * 4).sum() / 2 < 0.8 * (mixed.max(axis=1) * 4).sum()
    # batches themselves come in no order of length
    assert abs(np.corrcoef(np.arange(32), batches.max(axis=1))[0, 1]) < 0.6


def test_a_training_order_may_end_within_a_pass():
    order = training_order(np.arange(7), n_batches=5, batch=3, generator=np.random.default_rng(0))
    assert len(order) == 15
    assert np.bincount(order, minlength=7).min() >= 2


def test_the_length_of_a_pair_is_that_of_its_longer_sequence():
    sequences = Sequences(((1, 2), (1,), (1, 2)), ((5,), (5, 5, 5, 5), (5, 5)))
    pairs = Pairs(np.array([0, 2]), np.array([1, 0]), np.zeros(2))
    assert pairs.lengths(sequences).tolist() == [5, 4]


def test_human_pairs_are_drawn_in_proportion_and_turned_for_what_is_disliked(tiny_base):
    pairs = {
        "letters": [PreferencePair("p", "good", "bad")],
        "short": [PreferencePair("p", "tiny", "endless")],
    }
    anchor = Anchor("a", NAMES, (0.75, -0.25))
    sequences, found = encode_human_pairs(
        tiny_base, pairs, anchor, n_pairs=8, max_tokens=64, seed=0
    )
    texts = [tiny_base.tokenizer.decode(ids, skip_special_tokens=True) for ids in sequences.answers]
    firsts = [texts[index] for index in found.first]
    seconds = [texts[index] for index in found.second]
    assert firsts == ["good"] * 6 + ["endless"] * 2
    assert seconds == ["bad"] * 6 + ["tiny"] * 2
    assert all(ids[-1] == tiny_base.tokenizer.eos_token_id for ids in sequences.answers)


def test_long_human_pairs_lose_the_prompts_beginning_and_the_answers_end(tiny_base):
    pairs = {"letters": [PreferencePair("abcdefgh", "0123456789", "x")]}
    sequences, _ = encode_human_pairs(tiny_base, pairs, LETTERS, n_pairs=1, max_tokens=8, seed=0)
    assert tiny_base.tokenizer.decode(sequences.answers[0]) == "0123456"
    assert tiny_base.tokenizer.decode(sequences.prompts[0]) == "h"
    assert tiny_base.tokenizer.decode(sequences.prompts[1]) == "cdefgh"


def test_conversations_are_trained_as_the_real_turns_that_are_served(tiny_base, monkeypatch):
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    monkeypatch.setattr(tiny_base.tokenizer, "chat_template", template)
    turns = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "why"},
        {"role": "assistant", "content": "so"},
        {"role": "user", "content": "and"},
    ]
    row = {"chosen": [*turns, {"role": "assistant", "content": "yes"}]}
    row["rejected"] = [*turns, {"role": "assistant", "content": "no"}]
    pair = PreferencePair(*texts_of(row, "chosen", "rejected", place="Row"))
    sequences, _ = encode_human_pairs(
        tiny_base, {"letters": [pair]}, LETTERS, n_pairs=1, max_tokens=200, seed=0
    )
    served = encode_prompt(tiny_base, format_messages(tiny_base, turns))
    assert sequences.prompts == (tuple(served),) * 2
    assert served != encode_prompt(tiny_base, format_messages(tiny_base, pair.prompt))


def test_an_objective_without_pairs_is_refused(tiny_base):
    with pytest.raises(InvalidInputError, match="'letters' has no preference pairs"):
        encode_human_pairs(tiny_base, {"letters": []}, LETTERS, n_pairs=4, max_tokens=32, seed=0)
