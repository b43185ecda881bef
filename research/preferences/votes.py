"""Votes of real users on statements, as one table for each topic.

A folder holds `items.jsonl` (`conv`, `item`, and optionally `flagged`) and `votes.jsonl` (`conv`,
`user`, `votes`: item to number). A vote is 1 agree, 0 pass, -1 disagree, or any rating between a
million and minus a million, whose squares can be added up; what is
missing was not seen or not answered. `conv` may be left out where there is one topic only. Flagged
statements are left out, and so are users without votes on the others.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.files import is_finite_number, numbered_jsonl

LARGEST = 1e6  # vote


@dataclass(frozen=True, eq=False)
class VoteTable:
    """Who voted what on one topic.

    Attributes:
        topic: Its name.
        items: Identifiers of the statements, `[items]`.
        votes: `[users, items]`, higher is more favourable; NaN where there is none.
    """

    topic: str
    items: tuple[str, ...]
    votes: Float[ndarray, "users items"]

    @property
    def seen(self) -> Bool[ndarray, "users items"]:
        """Where there is a vote."""
        return np.isfinite(self.votes)


def load_votes(folder: Path, *, topics: Sequence[str] = ()) -> list[VoteTable]:
    """One table a topic, the topics in the order of the votes file; all where none are named.

    Raises:
        InvalidInputError: a file is missing, a topic has no votes, or a line of one of the topics
            is not of the schema above.
    """
    known: dict[str, dict[str, int]] = defaultdict(dict)
    flagged: set[tuple[str, str]] = set()
    for number, row in numbered_jsonl(folder / "items.jsonl", what="items file").items():
        topic, item = _key(row, "item", file="items.jsonl", number=number)
        if row.get("flagged"):
            flagged.add((topic, item))
        else:
            known[topic].setdefault(item, len(known[topic]))
    users: dict[str, list[dict[int, float]]] = defaultdict(list)
    for number, row in numbered_jsonl(folder / "votes.jsonl", what="votes file").items():
        topic, _ = _key(row, "user", file="votes.jsonl", number=number)
        users[topic]  # also where nobody's votes count
        if topics and topic not in topics:
            continue
        votes = _votes(row, number=number)
        columns = known[topic]
        missing = next((i for i in votes if i not in columns and (topic, i) not in flagged), None)
        if missing is not None:
            raise InvalidInputError(
                f"Line {number} of votes.jsonl votes on the item {missing!r}, which items.jsonl "
                f"does not list for the topic {topic!r}; add it, remove the vote, or name other "
                "topics."
            )
        counted = {columns[item]: vote for item, vote in votes.items() if item in columns}
        if counted:
            users[topic].append(counted)
    unknown = sorted(set(topics) - set(users))
    if unknown:
        raise InvalidInputError(
            f"The topic {unknown[0]!r} is unknown; known are {', '.join(map(repr, users))}."
        )
    return [_table(topic, known[topic], rows) for topic, rows in users.items() if rows]


def _table(topic: str, columns: dict[str, int], rows: list[dict[int, float]]) -> VoteTable:
    votes = np.full((len(rows), len(columns)), np.nan)
    for user, row in enumerate(rows):
        votes[user, list(row)] = list(row.values())
    voted = np.flatnonzero(np.isfinite(votes).any(axis=0))
    items = list(columns)  # in the order of their columns
    return VoteTable(topic, tuple(items[column] for column in voted), votes[:, voted])


def _key(row: dict[str, Any], name: str, *, file: str, number: int) -> tuple[str, str]:
    if not isinstance(row.get(name), str | int):
        raise InvalidInputError(
            f"Line {number} of {file} has no {name!r}; give each line its identifier."
        )
    return str(row.get("conv", "")), str(row[name])


def _votes(row: dict[str, Any], *, number: int) -> dict[str, float]:
    votes = row.get("votes")
    if not isinstance(votes, dict) or not all(
        is_finite_number(v) and abs(v) <= LARGEST for v in votes.values()
    ):
        raise InvalidInputError(
            f"Line {number} of votes.jsonl has no 'votes' of the form item to finite number up to "
            "1e6; leave out items without a vote."
        )
    return {str(item): float(vote) for item, vote in votes.items()}
