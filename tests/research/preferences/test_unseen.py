"""Statements held out: what is personal is found where texts show it, and not where they do not."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.preferences.unseen import COLUMNS, as_markdown, item_texts, predict_unseen

N_USERS, N_ITEMS = 60, 40


def write_topic(folder: Path, *, is_personal: bool, seed: int = 0) -> Path:
    """Users who like one of two kinds of statements, which their texts name; or all of one mind."""
    generator = np.random.default_rng(seed)
    kinds = generator.integers(2, size=N_ITEMS)
    items = [
        {"conv": "t", "item": str(n), "text": f"{('tea', 'coffee')[kind]} number {n}"}
        for n, kind in enumerate(kinds)
    ]
    sides = generator.choice([-1.0, 1.0], size=N_USERS)
    strength = 1.5 if is_personal else 0.0
    rows = []
    for user, side in enumerate(sides):
        expected = strength * side * (2 * kinds - 1) + generator.normal(size=N_ITEMS)
        votes = {str(n): int(np.sign(value)) for n, value in enumerate(expected)}
        rows.append({"conv": "t", "user": str(user), "votes": votes})
    for name, lines in (("items", items), ("votes", rows)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def embed(texts: Sequence[str]) -> np.ndarray:
    return np.array([[1.0 if text.startswith("tea") else -1.0, 0.1] for text in texts])


def test_what_texts_show_of_a_user_is_found_on_statements_nobody_voted_on(tmp_path: Path) -> None:
    facts = predict_unseen(write_topic(tmp_path, is_personal=True), embed, n_votes=(5,))
    (row,) = facts["topics"]
    assert (row["votes"], row["users"], row["statements"]) == (5, N_USERS, N_ITEMS)
    assert row["gain"]["low"] > 0.1
    assert row["word counts"]["low"] > 0.1  # a word names the kind
    assert row["texts alone"]["low"] > 0.1
    assert row["known mean"]["low"] > 0.1
    assert row["stranger"]["low"] < 0.05
    assert facts["mean"] == []  # of one topic
    lines = as_markdown(facts).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert all(name in lines[0] for name in COLUMNS)


def test_nothing_is_found_where_all_are_of_one_mind(tmp_path: Path) -> None:
    (row,) = predict_unseen(write_topic(tmp_path, is_personal=False), embed, n_votes=(5,))["topics"]
    assert row["gain"]["low"] < 0.01
    assert abs(row["gain"]["estimate"]) < 0.03


def test_bad_numbers_and_items_without_text_are_refused(tmp_path: Path) -> None:
    folder = write_topic(tmp_path, is_personal=False)
    with pytest.raises(InvalidInputError, match="one or more"):
        predict_unseen(folder, embed, n_votes=(0,))
    (folder / "items.jsonl").write_text('{"conv": "t", "item": "1"}\n')
    with pytest.raises(InvalidInputError, match="has no 'text'"):
        item_texts(folder / "items.jsonl")
