"""Rows of files that users bring: JSONL, or parquet as Hugging Face datasets are stored.

Names and shapes are TRL's: prompts and answers are strings or lists of `{"role", "content"}`.
Messages of a prompt are written out as a transcript (`Human: ...`, blank line, `Assistant: ...`);
a prompt of one user message is that message. Other columns are ignored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.files import read_jsonl, require_file

PARQUET = ".parquet"
_FIELDS = ("prompt", "completion")
_SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}


def read_rows(path: Path, *, what: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a JSONL or, by its ending, parquet file, and how to name each in a message.

    Raises:
        InvalidInputError: the file is missing, or not what its ending says.
        MissingExtraError: it is parquet, and datasets is not installed.
    """
    if path.suffix != PARQUET:
        rows = read_jsonl(path, what=what)
        lines = path.read_text(encoding="utf-8").split("\n")
        numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
        return rows, [f"Line {number} of the {what} {str(path)!r}" for number in numbers]
    rows = _parquet(require_file(path, what=what), what=what)
    return rows, [f"Row {n} of the {what} {str(path)!r}" for n in range(1, len(rows) + 1)]


def read_completions(path: Path) -> tuple[list[str], list[str]]:
    """Prompts and answers, `[texts]` each: the columns `prompt` and `completion`.

    Raises:
        InvalidInputError: the file is missing, empty or unreadable, or a row lacks a field or holds
            another type. The sentence names file and line.
    """
    what = "file of answers"
    rows, places = read_rows(path, what=what)
    if not rows:
        raise InvalidInputError(f"The {what} {str(path)!r} is empty; give at least one answer.")
    texts = [
        [text_of(row, field, place=place) for field in _FIELDS]
        for row, place in zip(rows, places, strict=True)
    ]
    return [prompt for prompt, _ in texts], [completion for _, completion in texts]


def has_pairs(path: Path) -> bool:
    """Whether the first row of a file holds a pair rather than one answer."""
    rows, _ = read_rows(path, what="file to be scored")
    return bool(rows) and "completion" not in rows[0] and "chosen" in rows[0]


def text_of(row: Mapping[str, Any], field: str, *, place: str) -> str:
    """A prompt or an answer of a row as text.

    Raises:
        InvalidInputError: it is missing, or neither a string nor a list of messages with text.
    """
    if field not in row:
        raise InvalidInputError(f"{place} has no {field!r}; add it.")
    value = row[field]
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise InvalidInputError(
            f"{place} has {field!r} of type {type(value).__name__}; give a string or a list of "
            '{"role", "content"}.'
        )
    turns = [_turn(message, place=place, field=field) for message in value]
    if len(turns) == 1 or field != "prompt":
        return "\n\n".join(content for _, content in turns)
    return "\n\n".join(f"{speaker}: {content}" for speaker, content in turns)


def _turn(message: object, *, place: str, field: str) -> tuple[str, str]:
    role = message.get("role") if isinstance(message, Mapping) else None
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(role, str) or not isinstance(content, str):
        raise InvalidInputError(
            f'{place} has a message in {field!r} without the strings "role" and "content"; '
            "add them."
        )
    return _SPEAKERS.get(role, role), content


def _parquet(path: Path, *, what: str) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet  # with datasets; not needed for JSONL
    except ImportError as error:
        raise MissingExtraError(
            f"The {what} {str(path)!r} is parquet, which needs datasets; run pip install "
            "palate[train]."
        ) from error
    try:
        return parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidInputError(
            f"The {what} {str(path)!r} is not parquet ({reason}); write it again."
        ) from error
