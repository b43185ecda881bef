from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.rewards.card import load_card, save_card
from palate.rewards.job import fit_reward
from palate.rewards.pairs import PairSet
from palate.rewards.reward import LearnedReward, RewardVector, calibrate, load_reward
from palate.rewards.settings import LightSettings

ANSWERS = ["Thank you, dear friend.", "It is as follows.", "See below.", "A lovely question."]
PROMPTS = ["a", "b", "c", "d"]


@dataclass(frozen=True)
class FixedReward:
    objective: str
    values: tuple[float, ...]

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        del prompts, answers
        return np.array(self.values)


@pytest.fixture(scope="module")
def reward(train_pairs: PairSet, validation_pairs: PairSet) -> LearnedReward:
    return fit_reward(train_pairs, validation=validation_pairs, seed=5)


def test_the_card_holds_accuracy_beside_the_length_baselines(reward: LearnedReward) -> None:
    card = reward.card
    assert (card.objective, card.trunk, card.seed) == ("friendly", "light", 5)
    assert card.held_out.accuracy.estimate == 1.0
    assert card.held_out.accuracy.n == 30
    longer, shorter = card.held_out.longer_wins, card.held_out.shorter_wins
    assert longer.estimate + shorter.estimate == pytest.approx(1.0)
    assert card.settings["ridge"] is None
    assert card.selected["ridge"] in LightSettings().ridges
    assert card.model_hash == reward.model.fingerprint


def test_an_uncalibrated_reward_is_refused(reward: LearnedReward) -> None:
    with pytest.raises(InvalidInputError, match="'friendly' is not calibrated"):
        reward.score(PROMPTS, ANSWERS)
    with pytest.raises(InvalidInputError, match="'friendly' is not calibrated"):
        RewardVector((reward,)).score(PROMPTS, ANSWERS)


def test_calibration_keeps_the_order_and_gives_numbers_in_the_unit_interval(
    reward: LearnedReward,
) -> None:
    calibrated = calibrate(reward, prompts=PROMPTS, answers=ANSWERS)
    scores = calibrated.score(PROMPTS, ANSWERS)
    assert ((scores > 0) & (scores < 1)).all()
    assert (np.argsort(scores) == np.argsort(reward.raw(PROMPTS, ANSWERS))).all()
    assert calibrated.card.calibration_raw is not None
    assert calibrated.card.calibration_raw.n == 4
    assert reward.card.calibration is None  # the first reward is as it was


def test_a_scale_is_fitted_once(reward: LearnedReward) -> None:
    calibrated = calibrate(reward, prompts=PROMPTS, answers=ANSWERS)
    with pytest.raises(InvalidInputError, match="calibrated already"):
        calibrate(calibrated, prompts=PROMPTS, answers=ANSWERS)


def test_the_fingerprint_tells_scales_apart(reward: LearnedReward) -> None:
    first = calibrate(reward, prompts=PROMPTS, answers=ANSWERS)
    second = calibrate(reward, prompts=PROMPTS[:3], answers=ANSWERS[:3])
    assert len({reward.fingerprint, first.fingerprint, second.fingerprint}) == 3


def test_broken_sentences_cost_a_guarded_reward_their_share(
    reward: LearnedReward, tmp_path: Path
) -> None:
    plain = calibrate(reward, prompts=PROMPTS, answers=ANSWERS)
    guarded = replace(plain, card=plain.card.model_copy(update={"whole_sentences": True}))
    whole, broken = "Thank you for the lovely question.", "Thank you. 1.1.1.1. Th.an.k."
    before = plain.score(["a", "a"], [whole, broken])
    after = guarded.score(["a", "a"], [whole, broken])
    assert after[0] == before[0]
    assert after[1] < before[1] / 2
    assert guarded.fingerprint != plain.fingerprint
    guarded.save(tmp_path / "reward")
    assert load_reward(tmp_path / "reward").score(["a"], [broken]) == after[1]


def test_an_answer_without_a_word_of_the_prompt_is_worth_nothing_to_a_topical_reward(
    reward: LearnedReward,
) -> None:
    plain = calibrate(reward, prompts=PROMPTS, answers=ANSWERS)
    topical = replace(plain, card=plain.card.model_copy(update={"on_topic": True}))
    asked = ["What is inflation?", "What is inflation?", "And you?"]
    said = ["Inflated prices, thank you.", "I am sorry, thank you.", "I am well, thank you."]
    before, after = plain.score(asked, said), topical.score(asked, said)
    assert after.tolist() == [before[0], 0.0, before[2]]
    assert before.min() > 0
    assert topical.fingerprint != plain.fingerprint


def test_a_vector_has_one_column_per_objective_in_order() -> None:
    vector = RewardVector((FixedReward("x", (0.1, 0.2)), FixedReward("y", (1.0, 0.0))))
    assert vector.objectives == ("x", "y")
    assert vector.score(["p", "q"], ["a", "b"]).tolist() == [[0.1, 1.0], [0.2, 0.0]]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0.5, float("nan")), "'x' of text 1 is nan"),
        ((1.5, 0.5), "'x' of text 0 is 1.5"),
        ((0.5,), "shape \\(1,\\) for 2 texts"),
    ],
)
def test_a_vector_refuses_rewards_off_the_scale(values: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        RewardVector((FixedReward("x", values),)).score(["p", "q"], ["a", "b"])


def test_a_vector_refuses_no_reward_and_two_of_one_objective() -> None:
    with pytest.raises(InvalidInputError, match="at least one reward"):
        RewardVector(())
    with pytest.raises(InvalidInputError, match="'x' has several rewards"):
        RewardVector((FixedReward("x", (0.0,)), FixedReward("x", (0.0,))))


def test_prompts_and_answers_go_together() -> None:
    with pytest.raises(InvalidInputError, match="2 prompts for 1 answers"):
        RewardVector((FixedReward("x", (0.0,)),)).score(["p", "q"], ["a"])


def test_a_card_of_an_earlier_version_is_read(reward: LearnedReward, tmp_path: Path) -> None:
    save_card(reward.card, tmp_path)
    path = tmp_path / "card.json"
    path.write_text(path.read_text().replace('"selected"', '"chosen"'))
    assert load_card(tmp_path) == reward.card
