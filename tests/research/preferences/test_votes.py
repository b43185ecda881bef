import json
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.preferences.votes import load_votes


def write(folder: Path, items: list[object], votes: list[object]) -> Path:
    for name, rows in (("items", items), ("votes", votes)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_votes_become_a_table_without_flagged_items(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        [
            {"conv": "a", "item": "0", "flagged": False},
            {"conv": "a", "item": "1", "flagged": True},
            {"conv": "a", "item": "2"},
            {"conv": "a", "item": "never voted on"},
            {"conv": "b", "item": "0"},
        ],
        [
            {"conv": "a", "user": "x", "votes": {"0": 1, "1": -1}},
            {"conv": "b", "user": "x", "votes": {"0": 4.5}},
            {"conv": "a", "user": "y", "votes": {"2": -1, "0": 0}},
            {"conv": "a", "user": "flagged only", "votes": {"1": 1}},
        ],
    )
    first, second = load_votes(folder)
    assert (first.topic, first.items) == ("a", ("0", "2"))
    assert np.array_equal(first.votes, [[1.0, np.nan], [0.0, -1.0]], equal_nan=True)
    assert second.votes.tolist() == [[4.5]]
    assert first.seen.tolist() == [[True, False], [True, True]]


def test_one_topic_needs_no_name(tmp_path: Path) -> None:
    folder = write(tmp_path, [{"item": 7}], [{"user": 1, "votes": {"7": 3}}])
    (table,) = load_votes(folder)
    assert (table.topic, table.items) == ("", ("7",))


def test_an_item_that_one_topic_does_not_list_ends_no_other_topic(tmp_path: Path) -> None:
    items = [{"conv": "a", "item": "0"}, {"conv": "b", "item": "0"}]
    votes = [
        {"conv": "a", "user": "x", "votes": {"9": 1}},
        {"conv": "b", "user": "x", "votes": {"0": 1}},
    ]
    folder = write(tmp_path, items, votes)
    (table,) = load_votes(folder, topics=["b"])
    assert table.topic == "b"
    with pytest.raises(InvalidInputError, match=r"'9', which .* for the topic 'a'"):
        load_votes(folder)
    with pytest.raises(InvalidInputError, match="topic 'c' is unknown; known are 'a', 'b'"):
        load_votes(folder, topics=["c"])


@pytest.mark.parametrize(
    ("items", "votes", "sentence"),
    [
        ([{"conv": "a"}], [], "no 'item'"),
        ([{"item": "0"}], [{"user": "x"}], "no 'votes'"),
        ([{"item": "0"}], [{"user": "x", "votes": {"0": "yes"}}], "finite number"),
        ([{"item": "0"}], [{"user": "x", "votes": {"0": 10**400}}], "up to 1e6"),
        ([{"item": "0"}], [{"user": "x", "votes": {"5": 1}}], "does not list"),
    ],
)
def test_lines_of_another_schema_are_refused(
    tmp_path: Path, items: list[object], votes: list[object], sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        load_votes(write(tmp_path, items, votes))


def test_the_developers_votes_are_read_without_flagged_statements(shared_folder: Path) -> None:
    tables = load_votes(shared_folder / "data" / "people" / "polis")
    assert len(tables) == 9
    assert sum(len(table.items) for table in tables) <= 2301 - 742
