"""A language model as a judge: both orders, cached, within its budget."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from board_rows import USERS, row
from palate.core.errors import InvalidInputError
from palate.rewards.judge import Question
from research.board.verdicts import LanguageJudge, judged_pairs


class Shorter:
    """Prefers the shorter answer, and counts questions."""

    def __init__(self) -> None:
        self.n = 0

    def compare(self, questions: Sequence[Question]) -> np.ndarray:
        self.n += len(questions)
        return np.array([np.sign(len(q.second) - len(q.first)) / 2 + 0.5 for q in questions])


def _question(first: str) -> Question:
    return Question("Why?", first, "middle", "short")


def test_a_verdict_is_requested_once_in_both_orders(tmp_path: Path) -> None:
    shorter = Shorter()
    judge = LanguageJudge(shorter, "m", 100, tmp_path / "verdicts.jsonl")
    assert [judge.verdict(_question(text)) for text in ("a", "much longer", "a")] == [1, 0, 1]
    assert shorter.n == 4
    again = LanguageJudge(shorter, "m", 100, tmp_path / "verdicts.jsonl")
    assert again.verdict(_question("a")) == 1
    assert shorter.n == 4


def test_the_budget_holds_over_runs(tmp_path: Path) -> None:
    for _ in range(2):
        judge = LanguageJudge(Shorter(), "m", 3, tmp_path / "verdicts.jsonl")
        assert judge.verdict(_question("a")) == 1
        assert judge.verdict(_question("b")) is None


def test_every_method_is_judged_once_before_any_twice() -> None:
    rows = [
        row(method, "one", 0.0, prompt=f"file:{k}", text=f"{method} {k}")
        for method in ("base", "soup", "mod")
        for k in range(3)
    ]
    pairs = list(judged_pairs(rows, USERS, {f"file:{k}": "Why?" for k in range(3)}))
    assert [one.method for one, _ in pairs] == ["soup", "mod"] * 3
    assert all(question.second.startswith("base") for _, question in pairs)
    assert "be short" in pairs[0][1].criterion


def test_a_judge_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="give --judge-model"):
        LanguageJudge.connect("http://127.0.0.1:1/v1", "", 10, tmp_path)
