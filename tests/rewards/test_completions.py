import json
from pathlib import Path

import pytest

from palate.core.errors import InvalidInputError
from palate.rewards.completions import has_pairs, read_completions

ROW = {"prompt": "p", "completion": "c"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_reads_strings_and_messages_and_ignores_other_columns(tmp_path: Path) -> None:
    chat = {
        "prompt": [{"role": "user", "content": "Hi"}],
        "completion": [{"role": "assistant", "content": "Hello"}],
    }
    file = write(tmp_path / "a.jsonl", {**ROW, "rewards": [0.1]}, chat)
    assert read_completions(file) == (["p", "Hi"], ["c", "Hello"])


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "is empty"),
        ([ROW, {"prompt": "p"}], "Line 2 .* has no 'completion'"),
        ([{**ROW, "prompt": 3}], "Line 1 .* 'prompt' of type int"),
    ],
)
def test_bad_rows_are_refused_with_file_and_line(
    tmp_path: Path, rows: list[object], sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        read_completions(write(tmp_path / "a.jsonl", *rows))


def test_pairs_and_answers_are_told_apart(tmp_path: Path) -> None:
    assert not has_pairs(write(tmp_path / "a.jsonl", ROW))
    assert has_pairs(write(tmp_path / "b.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}))
    assert not has_pairs(write(tmp_path / "c.jsonl"))
