import json
from pathlib import Path

import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.rewards.job import fit_reward
from palate.rewards.pairs import PairSet
from palate.rewards.reward import LearnedReward, calibrate, load_reward


@pytest.fixture(scope="module")
def reward(train_pairs: PairSet, validation_pairs: PairSet) -> LearnedReward:
    return calibrate(
        fit_reward(train_pairs, validation=validation_pairs),
        prompts=validation_pairs.prompts,
        answers=validation_pairs.rejected,
        kind="clip",
    )


def test_a_reward_comes_back_with_its_card_and_its_bits(
    reward: LearnedReward, validation_pairs: PairSet, tmp_path: Path
) -> None:
    reward.save(tmp_path / "kind")
    again = load_reward(tmp_path / "kind")
    prompts, answers = validation_pairs.prompts, validation_pairs.chosen
    assert again.card == reward.card
    assert again.fingerprint == reward.fingerprint
    assert (again.score(prompts, answers) == reward.score(prompts, answers)).all()


def test_the_folder_holds_neither_pickle_nor_anything_unknown(
    reward: LearnedReward, tmp_path: Path
) -> None:
    reward.save(tmp_path / "kind")
    names = sorted(path.name for path in (tmp_path / "kind").iterdir())
    assert names == ["card.json", "light.json", "light.safetensors"]


def test_a_failed_save_leaves_no_folder(
    reward: LearnedReward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("palate.rewards.reward.save_card", fail)
    with pytest.raises(OSError, match="disk full"):
        reward.save(tmp_path / "kind")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_changed_is_refused(
    reward: LearnedReward, train_pairs: PairSet, validation_pairs: PairSet, tmp_path: Path
) -> None:
    reward.save(tmp_path / "kind")
    fit_reward(validation_pairs, validation=train_pairs).model.save(tmp_path / "kind")
    with pytest.raises(FormatError, match="changed after it was written"):
        load_reward(tmp_path / "kind")


def test_a_missing_folder_and_a_folder_without_card_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nowhere' does not exist"):
        load_reward(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match=r"card\.json' does not exist"):
        load_reward(tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"schema_version": 99}, FormatError, "version 99"),
        ({"kind": "other"}, FormatError, "kind 'other'"),
        ({"trunk": "abacus"}, InvalidInputError, "'trunk'"),
        ({"surprise": 1}, InvalidInputError, "'surprise' .* unknown"),
        ({"calibration": {"kind": "magic"}}, InvalidInputError, "magic"),
    ],
)
def test_a_card_of_another_shape_is_refused(
    reward: LearnedReward,
    tmp_path: Path,
    change: dict[str, object],
    error: type[Exception],
    sentence: str,
) -> None:
    reward.save(tmp_path / "kind")
    path = tmp_path / "kind/card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(error, match=sentence):
        load_reward(tmp_path / "kind")
