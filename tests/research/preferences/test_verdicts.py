"""Verdicts on anybody's answers: read in every form, and personal only where they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.rewards.rules import rule_from
from research.preferences.verdicts import Verdict, fit_users, read_verdicts

WORDS = ("the", "a", "sky", "sea", "is", "blue", "deep", "cold", "warm", "so", "old", "new", "tree")
LENGTH = rule_from(
    {"kind": "length", "unit": "words", "low": 0, "high": 40, "prefer": "shorter"},
    objective="brief",
)


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text(generator: np.random.Generator, n_words: int) -> str:
    return " ".join(generator.choice(WORDS, size=n_words)) + "."


def test_pairs_ties_lists_and_ratings_are_read(tmp_path: Path) -> None:
    path = written(
        tmp_path / "verdicts.jsonl",
        {"user_id": "ana", "prompt": "p", "chosen": "a", "rejected": "b"},
        {"user_id": "ana", "prompt": "p", "chosen": "a", "rejected": "c", "is_tie": True},
        {"user_id": 7, "prompt": "p", "responses": ["a", "b", "c"], "best": 1},
        {"user_id": "bob", "prompt": "q", "completion": "a", "rating": 20},
        {"user_id": "bob", "prompt": "q", "completion": "b", "rating": 90},
        {"user_id": "eve", "prompt": "q", "completion": "b", "rating": 3},
        {"user_id": "eve", "prompt": "q", "completion": "a", "rating": 3},
    )
    assert read_verdicts(path) == [
        Verdict("ana", "p", "a", "b"),
        Verdict("ana", "p", "a", "c", 0.5),
        Verdict("7", "p", "b", "a"),
        Verdict("7", "p", "b", "c"),
        Verdict("bob", "q", "b", "a"),
        Verdict("eve", "q", "b", "a", 0.5),
    ]


def test_a_table_of_all_kinds_is_read_from_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="parquet needs the datasets extra")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"user_id": "ana", "prompt": "p", "chosen": "a", "rejected": "b"},
        {"user_id": "ana", "prompt": "p", "chosen": "a", "rejected": "c", "is_tie": True},
        {"user_id": "bob", "prompt": "p", "responses": ["a", "b"], "best": 1.0},  # beside gaps
        {"user_id": "bob", "prompt": "q", "completion": "a", "rating": 20.0},
        {"user_id": "bob", "prompt": "q", "completion": "b", "rating": 90.0},
    ]
    columns = dict.fromkeys(name for row in rows for name in row)
    path = tmp_path / "verdicts.parquet"
    parquet.write_table(arrow.Table.from_pylist([{**columns, **row} for row in rows]), path)
    assert read_verdicts(path) == [
        Verdict("ana", "p", "a", "b"),
        Verdict("ana", "p", "a", "c", 0.5),
        Verdict("bob", "p", "b", "a"),
        Verdict("bob", "q", "b", "a"),
    ]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "no 'user_id'"),
        ({"user_id": "ana", "prompt": "p", "chosen": "a", "rejected": "a"}, "chosen == rejected"),
        ({"user_id": "ana", "prompt": "p", "chosen": "a"}, "no 'rejected'"),
        ({"user_id": "ana", "prompt": "p", "responses": ["a", "b"], "best": 2}, "the place of one"),
        ({"user_id": "ana", "prompt": "p", "completion": "a", "rating": float("nan")}, "finite"),
        ({"user_id": "ana", "prompt": "p", "completion": "a", "rating": 3}, "compares no two"),
    ],
)
def test_bad_rows_are_refused_with_their_place(
    tmp_path: Path, row: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        read_verdicts(written(tmp_path / "verdicts.jsonl", row))


def planted(*wants: float, n_users: int, n_each: int) -> list[Verdict]:
    """Users who want short answers so much, in turn; below zero, long ones."""
    generator = np.random.default_rng(0)
    verdicts: list[Verdict] = []
    for user in range(n_users):
        wanted = wants[user % len(wants)]
        for number in range(n_each):
            sizes = generator.integers(3, 40, size=2)
            one, other = (text(generator, int(size)) for size in sizes)
            chance = 1 / (1 + np.exp(-wanted * np.log((1 + sizes[1]) / (1 + sizes[0]))))
            pair = (one, other) if generator.random() < chance else (other, one)
            verdicts.append(Verdict(f"user {user}", f"prompt {number}", *pair))
    return verdicts


@pytest.mark.slow
def test_planted_personal_vectors_are_found_and_a_population_alone_is_not_called_personal() -> None:
    personal = fit_users(planted(2.0, -2.0, n_users=12, n_each=20), [LENGTH], seed=0)
    assert personal.is_personal
    assert "yes, +" in personal.sentence
    same = fit_users(planted(1.5, n_users=12, n_each=20), [LENGTH], seed=0)
    assert not same.is_personal
    assert "not shown, " in same.sentence
    shares = same.to_json()["held_out_accuracy"]
    assert shares["population"] > 0.6  # that all want short answers is found
    assert shares["longer"] < 0.4


def test_one_user_with_few_verdicts_gets_a_vector_and_no_verdict() -> None:
    verdicts = [
        Verdict("ana", f"p{n}", "short.", "a much longer answer than that.") for n in (1, 2)
    ]
    fitted = fit_users(verdicts, [LENGTH], seed=0)
    assert "not shown (fewer than 5 users)" in fitted.sentence
    row = fitted.to_json()["users"][0]
    assert row["user"] == "ana"
    assert row["coefficients"]["brief"]["mean"] > 0
    with pytest.raises(InvalidInputError, match="of one prompt"):
        fit_users(verdicts[:1], [LENGTH], seed=0)
