"""Answers in files: JSONL with `prompt` and `completion`, one object a line.

These are TRL's names. Both are strings or lists of `{"role", "content"}`; other columns are
ignored, so a file of rollouts can be read as it is.
"""

from pathlib import Path

from palate.core.errors import InvalidInputError
from palate.core.files import read_jsonl
from palate.rewards.pairs import line_places, text_of

_FIELDS = ("prompt", "completion")


def read_completions(path: Path) -> tuple[list[str], list[str]]:
    """Prompts and answers of a JSONL file, `[texts]` each.

    Raises:
        InvalidInputError: the file is missing, empty or not JSONL, or a row lacks a field or holds
            another type. The sentence names file and line.
    """
    what = "file of answers"
    rows = read_jsonl(path, what=what)
    if not rows:
        raise InvalidInputError(f"The {what} {str(path)!r} is empty; give at least one answer.")
    texts: dict[str, list[str]] = {field: [] for field in _FIELDS}
    for row, place in zip(rows, line_places(path, what=what), strict=True):
        for field in _FIELDS:
            if field not in row:
                raise InvalidInputError(f"{place} has no {field!r}; add it.")
            texts[field].append(text_of(row[field], place=place, field=field))
    return texts["prompt"], texts["completion"]


def has_pairs(path: Path) -> bool:
    """Whether the first row of a JSONL file holds a pair rather than one answer.

    Raises:
        InvalidInputError: the file is missing or not JSONL.
    """
    rows = read_jsonl(path, what="file to be scored")
    return bool(rows) and "completion" not in rows[0] and "chosen" in rows[0]
