"""Answers in files: JSONL or parquet with `prompt` and `completion`.

These are TRL's names. Both are strings or lists of `{"role", "content"}`; other columns are
ignored, so a file of rollouts can be read as it is.
"""

from pathlib import Path

from palate.core.errors import InvalidInputError
from palate.rewards.pairs import text_of
from palate.rewards.rows import read_rows

_FIELDS = ("prompt", "completion")


def read_completions(path: Path) -> tuple[list[str], list[str]]:
    """Prompts and answers of a JSONL or parquet file, `[texts]` each.

    Raises:
        InvalidInputError: the file is missing, empty or unreadable, or a row lacks a field or holds
            another type. The sentence names file and line.
    """
    what = "file of answers"
    rows, places = read_rows(path, what=what)
    if not rows:
        raise InvalidInputError(f"The {what} {str(path)!r} is empty; give at least one answer.")
    texts: dict[str, list[str]] = {field: [] for field in _FIELDS}
    for row, place in zip(rows, places, strict=True):
        for field in _FIELDS:
            if field not in row:
                raise InvalidInputError(f"{place} has no {field!r}; add it.")
            texts[field].append(text_of(row[field], place=place, field=field))
    return texts["prompt"], texts["completion"]


def has_pairs(path: Path) -> bool:
    """Whether the first row of a file holds a pair rather than one answer.

    Raises:
        InvalidInputError: the file is missing or unreadable.
    """
    rows, _ = read_rows(path, what="file to be scored")
    return bool(rows) and "completion" not in rows[0] and "chosen" in rows[0]
