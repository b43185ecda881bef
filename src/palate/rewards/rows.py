"""Rows of files that users bring: JSONL, or parquet as Hugging Face datasets are stored.

Names and shapes are TRL's: prompts and answers are strings or lists of `{"role", "content"}`.
Messages of a prompt are written out as a transcript (`Human: ...`, blank line, `Assistant: ...`),
which `turns_of` reads; a prompt of one user message is that message. Answers that are whole chats
begin with the prompt, as in TRL's `maybe_extract_prompt`. Other columns are ignored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.files import numbered_jsonl, require_file
from palate.rewards.texts import SPEAKERS, turns_of

PARQUET = ".parquet"
Turns = list[dict[str, str]]


def read_rows(path: Path, *, what: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of a JSONL or, by its ending, parquet file, and how to name each in a message.

    Raises:
        InvalidInputError: the file is missing, empty, or not what its ending says.
        MissingExtraError: it is parquet, and datasets is not installed.
    """
    if path.suffix != PARQUET:
        kind, numbered = "Line", numbered_jsonl(path, what=what)
    else:
        rows = _parquet(require_file(path, what=what), what=what)
        kind, numbered = "Row", dict(enumerate(rows, start=1))
    if not numbered:
        raise InvalidInputError(f"The {what} {str(path)!r} is empty; give at least one row.")
    places = [f"{kind} {number} of the {what} {str(path)!r}" for number in numbered]
    return [*numbered.values()], places


def read_completions(path: Path) -> tuple[list[str], list[str]]:
    """Prompts and answers, `[texts]` each: the columns `prompt` and `completion`.

    Raises:
        InvalidInputError: the file is missing, empty or unreadable, or a row lacks a field or holds
            another type. The sentence names file and line.
    """
    rows, places = read_rows(path, what="file of answers")
    texts = [
        texts_of(row, "completion", place=place) for row, place in zip(rows, places, strict=True)
    ]
    return [prompt for prompt, _ in texts], [completion for _, completion in texts]


def has_pairs(path: Path) -> bool:
    """Whether the first row of a file holds a pair rather than one answer."""
    rows, _ = read_rows(path, what="file to be scored")
    return "completion" not in rows[0] and "chosen" in rows[0]


def texts_of(row: Mapping[str, Any], *fields: str, place: str) -> list[str]:
    """The prompt of a row, then its answers in these fields, as text.

    Raises:
        InvalidInputError: one is missing or neither a string nor messages with text, or an answer
            is other than one message of the assistant.
    """
    answers = [_value(row, field, place=place) for field in fields]
    if not answers:
        own = _value(row, "prompt", place=place)
        return [own if isinstance(own, str) else _transcript(own, place=place)]
    shared = _shared([answer for answer in answers if not isinstance(answer, str)], n=len(answers))
    own = [] if shared and row.get("prompt") is None else _value(row, "prompt", place=place)
    if isinstance(own, str):
        prompt = _transcript(shared, place=place) if shared else own
    else:
        is_within = shared[: len(own)] == own
        prompt = _transcript(shared if is_within else [*own, *shared], place=place)
    texts = [prompt]
    for field, answer in zip(fields, answers, strict=True):
        rest = answer if isinstance(answer, str) else answer[len(shared) :]
        if not isinstance(rest, str) and [turn["role"] for turn in rest] != ["assistant"]:
            raise InvalidInputError(
                f"{place} has an answer in {field!r} that is not one message of the assistant; "
                "give the answer alone, or after the messages that both answers share."
            )
        texts.append(rest if isinstance(rest, str) else rest[0]["content"])
    return texts


def _shared(chats: list[Turns], *, n: int) -> Turns:
    """What all of the answers begin with, if all are messages; never the last message of one."""
    most = min(map(len, chats)) - 1 if len(chats) == n else 0
    apart = (k for k in range(most) if any(chat[k] != chats[0][k] for chat in chats))
    n_same = next(apart, most)
    return chats[0][:n_same] if n_same else []


def _transcript(turns: Turns, *, place: str) -> str:
    wanted = [(turn["role"], turn["content"].strip()) for turn in turns]
    written = "\n\n".join(f"{SPEAKERS[turn['role']]}: {turn['content']}" for turn in turns)
    for text in (turns[-1]["content"], written):
        if [(turn["role"], turn["content"].strip()) for turn in turns_of(text)] == wanted:
            return text
    raise InvalidInputError(
        f"{place} has a message in 'prompt' with a paragraph that begins like a speaker, such as "
        "'Human:'; reword it."
    )


def _value(row: Mapping[str, Any], field: str, *, place: str) -> str | Turns:
    if field not in row:
        raise InvalidInputError(f"{place} has no {field!r}; add it.")
    value: Any = row[field]
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise InvalidInputError(
            f"{place} has {field!r} of type {type(value).__name__}; give a string or a list of "
            '{"role", "content"}.'
        )
    return [_turn(message, place=place, field=field) for message in value]


def _turn(message: Any, *, place: str, field: str) -> dict[str, str]:
    role, content = (
        (message.get(name) if isinstance(message, Mapping) else None)
        for name in ("role", "content")
    )
    if str(role) not in SPEAKERS or not isinstance(content, str):
        raise InvalidInputError(
            f"{place} has a message in {field!r} without a role ({', '.join(SPEAKERS)}) and a "
            'text as "content"; correct it.'
        )
    return {"role": str(role), "content": content}


def _parquet(path: Path, *, what: str) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet  # with datasets; not needed for JSONL
    except ImportError as error:
        raise MissingExtraError(
            f"The {what} {str(path)!r} is parquet, which needs datasets; run pip install "
            "palate[train]."
        ) from error
    try:
        return parquet.read_table(path).to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InvalidInputError(
            f"The {what} {str(path)!r} is not parquet ({reason}); write it again."
        ) from error
