import json
from pathlib import Path

import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.rewards.job import RewardJob, score_file, train_reward
from rewards.conftest import friendly_pairs


def write_pairs(path: Path, *, seed: int, n_pairs: int = 30, objective: str = "friendly") -> Path:
    rows = [
        {"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected, "objective": objective}
        for p in friendly_pairs(n_pairs, seed=seed).pairs
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_answers(path: Path) -> Path:
    rows = [
        {"prompt": "Explain rain.", "completion": text}
        for text in ("It is as follows.", "Thank you, dear friend.", "See below.", "What a day.")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_pairs(folder / "train.jsonl", seed=1)
    write_pairs(folder / "validation.jsonl", seed=2)
    write_answers(folder / "answers.jsonl")
    return folder


def job(files: Path, out: Path, **changes: object) -> RewardJob:
    values = {
        "pairs": files / "train.jsonl",
        "validation": files / "validation.jsonl",
        "calibrate": files / "answers.jsonl",
        "out": out,
    }
    return RewardJob.checked({**values, **changes}, source="test")


def test_training_and_scoring_go_from_files_to_files(files: Path, tmp_path: Path) -> None:
    reward = train_reward(job(files, tmp_path / "friendly"))
    assert reward.card.held_out.accuracy.estimate == 1.0
    scored = score_file(tmp_path / "friendly", files / "answers.jsonl").to_json()
    assert (scored["scale"], scored["n"]) == ("logistic", 4)
    assert all(0 < score < 1 for score in scored["scores"])
    assert scored["scores"][1] == max(scored["scores"])  # the friendly one


def test_ranking_pairs_gives_the_cards_figures_again(files: Path, tmp_path: Path) -> None:
    reward = train_reward(job(files, tmp_path / "friendly", calibrate=None))
    scored = score_file(tmp_path / "friendly", files / "validation.jsonl")
    assert scored.held_out == reward.card.held_out


def test_an_uncalibrated_reward_gives_log_odds_only(files: Path, tmp_path: Path) -> None:
    train_reward(job(files, tmp_path / "friendly", calibrate=None))
    with pytest.raises(InvalidInputError, match="not calibrated"):
        score_file(tmp_path / "friendly", files / "answers.jsonl")
    raw = score_file(tmp_path / "friendly", files / "answers.jsonl", is_raw=True)
    assert raw.scale == "raw"


def test_swapped_pairs_teach_the_opposite(files: Path, tmp_path: Path) -> None:
    train_reward(job(files, tmp_path / "cold", is_swapped=True, objective="cold"))
    scores = score_file(tmp_path / "cold", files / "answers.jsonl").scores
    assert scores[1] == min(scores)


def test_a_folder_that_exists_is_never_touched(files: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("dear")
    with pytest.raises(InvalidInputError, match="exists; give a new one"):
        train_reward(job(files, tmp_path / "mine"))
    assert (tmp_path / "mine/thesis.txt").read_text() == "dear"


def test_nothing_is_written_when_something_is_wrong(files: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    for change in ({"calibrate": tmp_path / "empty.jsonl"}, {"validation": files / "train.jsonl"}):
        with pytest.raises(InvalidInputError):
            train_reward(job(files, tmp_path / "out", **change))
        assert not (tmp_path / "out").exists()


def test_pairs_of_two_objectives_do_not_measure_each_other(files: Path, tmp_path: Path) -> None:
    other = write_pairs(tmp_path / "rude.jsonl", seed=3, objective="rude")
    with pytest.raises(InvalidInputError, match="'friendly' and the validation pairs of 'rude'"):
        train_reward(job(files, tmp_path / "out", validation=other))


def test_a_trunk_that_is_no_model_is_refused(files: Path, tmp_path: Path) -> None:
    (tmp_path / "trunk").mkdir()
    with pytest.raises(FormatError, match="not a model with a tokenizer"):
        train_reward(job(files, tmp_path / "out", trunk=str(tmp_path / "trunk")))


def test_equal_answers_are_scored_as_a_tie(files: Path, tmp_path: Path) -> None:
    train_reward(job(files, tmp_path / "friendly"))
    rows = (files / "validation.jsonl").read_text().splitlines()
    tie = json.dumps({"prompt": "Explain rain.", "chosen": "It rains.", "rejected": "It rains."})
    (tmp_path / "tie.jsonl").write_text("\n".join([*rows[:9], tie]))
    scored = score_file(tmp_path / "friendly", tmp_path / "tie.jsonl")
    assert len(scored.scores) == 10
    assert scored.scores[9][0] == scored.scores[9][1]
    assert scored.held_out is not None
    assert scored.held_out.accuracy.estimate == pytest.approx(0.95)
