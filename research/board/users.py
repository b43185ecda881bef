"""The board's users: what they want, what they state, and how they say it in three wordings.

A user's *truth* weighs the objectives, with any sign; absolute weights sum to one. Only the report
reads it. What a user *states* is a preference as sliders hold it, in tenths, and one of three
wordings: a short instruction, a profile in the first person, a vague remark.

`users.jsonl` beside this file holds 200 of them; `python -m research.board.draw` made it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError
from palate.core.files import is_finite_number, read_jsonl
from palate.core.simplex import vector_from_mapping
from research.board.settings import FOLDER

WORDINGS = ("instruction", "profile", "vague")
SHAPES = ("drawn", "sparse", "uneven", "conflicting", "indifferent")
USERS = FOLDER / "users.jsonl"
TOLERANCE = 1e-5  # of the sum: weights in the file are rounded


@dataclass(frozen=True)
class BoardUser:
    """One user."""

    name: str  # also of an expert's folder
    shape: str  # one of `SHAPES`
    truth: Mapping[str, float]  # by objective, any sign, absolute values summing to one
    preference: Mapping[str, float]  # as stated: shares by objective, on the simplex
    wordings: Mapping[str, str]  # the instruction in three wordings


def load_users(path: Path | None, *, objectives: Sequence[str], n: int) -> tuple[BoardUser, ...]:
    """The first `n` users of the file, of those beside this module by default.

    Raises:
        InvalidInputError: the file is missing, holds fewer users, or a user lacks a field, has a
            name that another has, or wants an objective that the library does not have.
    """
    source = path or USERS
    rows = read_jsonl(source, what="file of users")
    if len(rows) < n:
        raise InvalidInputError(
            f"The file {str(source)!r} holds {len(rows)} users, but n_users is {n}; ask for fewer, "
            "or give a file of more."
        )
    users = tuple(_user(row, objectives, number) for number, row in enumerate(rows[:n], start=1))
    names = [user.name for user in users]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"Two users have the name {twice!r}; give each their own.")
    return users


def _user(row: dict[str, Any], objectives: Sequence[str], number: int) -> BoardUser:
    fields = {"name", "shape", "truth", "preference", "wordings"}
    missing = sorted(fields - row.keys())
    if missing or any(not row["wordings"].get(name) for name in WORDINGS):
        lacks = missing[0] if missing else "wordings"
        raise InvalidInputError(
            f"User {number} of the file has no whole {lacks!r}; give name, shape, truth, "
            f"preference, and the wordings {', '.join(WORDINGS)}."
        )
    vector_from_mapping(row["preference"], objectives=tuple(objectives))
    truth: dict[str, float] = row["truth"]
    unknown = [name for name in truth if name not in objectives]
    total = sum(abs(v) for v in truth.values() if is_finite_number(v))
    if unknown or abs(total - 1.0) > TOLERANCE:
        fault = f"the unknown objective {unknown[0]!r}" if unknown else f"a length of {total:g}"
        raise InvalidInputError(
            f"The truth of user {number} has {fault}; weigh the library's objectives "
            f"({', '.join(objectives)}) with absolute weights that sum to one."
        )
    return BoardUser(**{name: row[name] for name in fields})
