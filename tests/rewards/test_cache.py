import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.rewards.cache import CachedReward, ScoreCache
from palate.rewards.fit import fit_reward
from palate.rewards.pairs import PairSet
from palate.rewards.reward import calibrate


@dataclass
class CountingReward:
    """Counts what it is asked; its score is a number with no short binary form."""

    fingerprint: str = "v1"
    objective: str = "count"
    asked: list[str] = field(default_factory=list)

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        self.asked += answers
        return np.array([len(p + a) / 30.0 for p, a in zip(prompts, answers, strict=True)])


def test_each_different_text_is_computed_once(tmp_path: Path) -> None:
    inner = CountingReward()
    reward = CachedReward(inner, ScoreCache(tmp_path / "scores.sqlite"))
    first = reward.score(["p", "p", "q"], ["a", "a", "a"])
    again = reward.score(["q", "p", "p"], ["a", "a", "bb"])
    assert inner.asked == ["a", "a", "bb"]
    assert first.tolist() == [2 / 30, 2 / 30, 2 / 30]
    assert again.tolist() == [2 / 30, 2 / 30, 3 / 30]


def test_prompt_and_answer_do_not_run_into_each_other(tmp_path: Path) -> None:
    inner = CountingReward()
    reward = CachedReward(inner, ScoreCache(tmp_path / "scores.sqlite"))
    reward.score(["ab", "a"], ["c", "bc"])
    assert len(inner.asked) == 2


def test_another_reward_does_not_meet_old_scores(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    CachedReward(CountingReward("v1"), cache).score(["p"], ["a"])
    other = CountingReward("v2")
    CachedReward(other, cache).score(["p"], ["a"])
    assert other.asked == ["a"]


def test_a_hit_is_the_recomputed_number_to_the_bit(
    tmp_path: Path, train_pairs: PairSet, validation_pairs: PairSet
) -> None:
    reward = calibrate(
        fit_reward(train_pairs, validation=validation_pairs),
        prompts=train_pairs.prompts,
        answers=train_pairs.rejected,
    )
    cached = CachedReward(reward, ScoreCache(tmp_path / "scores.sqlite"))
    prompts, answers = validation_pairs.prompts, validation_pairs.chosen
    computed = cached.score(prompts, answers)
    hits = CachedReward(reward, ScoreCache(tmp_path / "scores.sqlite")).score(prompts, answers)
    assert (hits == computed).all()
    assert (hits == reward.score(prompts, answers)).all()


def test_an_interrupted_batch_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    ScoreCache(path).save({"before": 0.5})
    torn = sqlite3.connect(path)
    torn.execute("BEGIN")
    torn.execute("INSERT INTO scores VALUES ('half', 0.1)")
    torn.close()  # as when the process ends: never committed
    assert ScoreCache(path).load(["before", "half"]) == {"before": 0.5}


def test_a_score_that_fails_is_not_kept(tmp_path: Path) -> None:
    class Failing(CountingReward):
        def score(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
            raise InvalidInputError("no")

    path = tmp_path / "scores.sqlite"
    with pytest.raises(InvalidInputError, match="no"):
        CachedReward(Failing(), ScoreCache(path)).score(["p"], ["a"])
    assert not path.exists()


def test_more_keys_than_one_query_holds(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "scores.sqlite")
    scores = {f"key {i}": i / 7 for i in range(1201)}
    cache.save(scores)
    assert cache.load(list(scores)) == scores


def test_several_writers_share_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    errors: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for i in range(20):
                ScoreCache(path).save({f"{name}{i}": 0.5})
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(ScoreCache(path).load([f"{name}{i}" for name in "abc" for i in range(20)])) == 60


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("not a database, but long enough to have a header of one hundred bytes " * 3)
    with pytest.raises(FormatError, match=r"text\.sqlite"):
        ScoreCache(text).load(["k"])
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE scores (a)")
    connection.commit()
    connection.close()
    with pytest.raises(FormatError, match=r"other\.sqlite"):
        ScoreCache(other).load(["k"])
    with pytest.raises(FormatError, match="cannot be opened"):
        ScoreCache(tmp_path).load(["k"])
