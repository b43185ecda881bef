"""A tiny base, a reward from letters, and rollouts of it."""

import numpy as np
import pytest

from fakes import save_tiny_llama
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.models.load import load_base
from palate.training.rollouts import RolloutJob, RolloutSettings, sample_answers, score_rollouts


class LetterRewards:
    """Share of lower-case letters, and shortness."""

    objectives = ("letters", "short")

    def score(self, prompts, answers):
        assert len(prompts) == len(answers)
        return np.array(
            [
                [sum(c.islower() for c in text) / max(1, len(text)), max(0.0, 1 - len(text) / 24)]
                for text in answers
            ]
        )


@pytest.fixture(scope="session")
def letter_rewards():
    return LetterRewards()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    return load_base(save_tiny_llama(tmp_path_factory.mktemp("tiny") / "base"))


@pytest.fixture(scope="session")
def tiny_engine(tiny_base):
    return LocalEngine(tiny_base, AdapterBank(tiny_base, {}))


@pytest.fixture(scope="session")
def tiny_job():
    settings = RolloutSettings(num_generations=4, max_completion_length=12, chunk_prompts=2)
    return RolloutJob(tuple(f"prompt {index}" for index in range(5)), settings, seed=1)


@pytest.fixture(scope="session")
def tiny_rollouts(tiny_engine, letter_rewards, tiny_job, tmp_path_factory):
    path = tmp_path_factory.mktemp("rollouts") / "rollouts.jsonl"
    return score_rollouts(sample_answers(tiny_engine, tiny_job, path), letter_rewards)
