"""Rollouts: what is stored, and what an interruption leaves."""

import json
from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.training.rollouts import (
    RolloutJob,
    RolloutSettings,
    own_answers,
    read_rollouts,
    sample_answers,
    score_rollouts,
    write_rollouts,
)


def test_every_prompt_is_answered_so_often_and_scored(tiny_rollouts, letter_rewards, tiny_job):
    assert [row.prompt for row in tiny_rollouts] == [p for p in tiny_job.prompts for _ in range(4)]
    texts = [row.completion for row in tiny_rollouts]
    expected = letter_rewards.score(texts, texts)
    assert np.array_equal(np.array([row.rewards for row in tiny_rollouts]), expected.round(6))
    assert len({row.tokens for row in tiny_rollouts}) > 10
    assert all(row.log_prob < 0 for row in tiny_rollouts)


def test_scored_rollouts_are_read_back_as_they_were(tiny_rollouts, letter_rewards, tmp_path):
    path = tmp_path / "r.jsonl"
    write_rollouts(path, tiny_rollouts, objectives=letter_rewards.objectives)
    assert read_rollouts(path, objectives=letter_rewards.objectives) == tiny_rollouts
    row = json.loads(path.read_text().splitlines()[0])
    assert set(row) == {"prompt", "completion", "tokens", "log_prob", "rewards", "finish"}
    with pytest.raises(FormatError, match="not a rollout of these objectives"):
        read_rollouts(path, objectives=("letters", "other"))


@pytest.mark.parametrize("kept_bytes", [0, 10, 900, 2000, 10**9])
def test_sampling_goes_on_after_a_cut_anywhere_to_the_same_bytes(
    tiny_engine, tiny_job, tmp_path, kept_bytes
):
    whole = tmp_path / "whole.jsonl"
    sample_answers(tiny_engine, tiny_job, whole)
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(whole.read_bytes()[:kept_bytes])
    told = []
    sample_answers(tiny_engine, tiny_job, cut, on_progress=lambda *at: told.append(at))
    assert cut.read_bytes() == whole.read_bytes()
    assert told == [] if kept_bytes == 10**9 else told[-1] == (5, 5)


def test_prompted_answers_follow_the_bases_own_and_change_none_of_them(
    tiny_engine, tiny_job, tmp_path
):
    settings = tiny_job.settings.model_copy(update={"num_prompted_generations": 2})
    job = replace(tiny_job, settings=settings, instructions=("Be brief.", "Be long."))
    rows = sample_answers(tiny_engine, job, tmp_path / "r.jsonl")
    of_each = [row.instruction for row in rows[:8]]
    assert of_each == [""] * 4 + ["Be brief."] * 2 + ["Be long."] * 2
    own = sample_answers(tiny_engine, tiny_job, tmp_path / "own.jsonl")
    assert [row.tokens for row in own_answers(rows)] == [row.tokens for row in own]
    assert rows == sample_answers(tiny_engine, job, tmp_path / "r.jsonl")  # read again


def test_a_file_of_other_prompts_is_refused(tiny_engine, tiny_job, tmp_path):
    path = tmp_path / "r.jsonl"
    sample_answers(tiny_engine, tiny_job, path)
    other = replace(tiny_job, prompts=("another", *tiny_job.prompts[1:]))
    with pytest.raises(FormatError, match="other prompts"):
        sample_answers(tiny_engine, other, path)


@pytest.mark.parametrize("wrong", [np.nan, 1.5, -0.2])
def test_a_reward_that_is_no_number_in_range_is_refused(tiny_rollouts, wrong):
    class Broken:
        objectives = ("a", "b")

        def score(self, prompts, answers):
            return np.full((len(prompts), 2), wrong)

    with pytest.raises(InvalidInputError, match=r"reward 'a'.*calibrate"):
        score_rollouts(tiny_rollouts, Broken())


@pytest.mark.parametrize(
    ("prompts", "reason"), [((), "no prompts"), (("a", "a"), "more than once")]
)
def test_prompts_are_needed_once_each(prompts, reason):
    with pytest.raises(InvalidInputError, match=reason):
        RolloutJob(prompts, RolloutSettings(), seed=0)
