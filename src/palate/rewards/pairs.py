"""Preference pairs in files: JSONL or parquet with `prompt`, `chosen`, `rejected`.

Names and shapes are those of TRL: the three fields are strings or lists of `{"role", "content"}`.
Messages of a prompt are written out as a transcript (`Human: ...`, blank line, `Assistant: ...`);
a prompt of one user message is that message. Other columns are ignored, but one of them may say
what a split must keep on one side (`group_by`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.types import PreferencePair
from palate.rewards.rows import read_rows

FEWEST_PROMPTS = 20  # with fewer, prompts are generic questions and group nothing
_SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}


@dataclass(frozen=True)
class PairSet:
    """Pairs of one objective, with what belongs together.

    Attributes:
        objective: Name of what the chosen answers have more of.
        pairs: At least one.
        groups: One label per pair; pairs of one group are not independent and never stand on both
            sides of a split.
        source: Where the pairs came from, for messages and cards.
    """

    objective: str
    pairs: tuple[PreferencePair, ...]
    groups: tuple[str, ...]
    source: str = "memory"

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    @property
    def prompts(self) -> list[str]:
        """What was asked, `[pairs]`."""
        return [pair.prompt for pair in self.pairs]

    @property
    def chosen(self) -> list[str]:
        """The preferred answers, `[pairs]`."""
        return [pair.chosen for pair in self.pairs]

    @property
    def rejected(self) -> list[str]:
        """The other answers, `[pairs]`."""
        return [pair.rejected for pair in self.pairs]

    @property
    def fingerprint(self) -> str:
        """Hash of the objective and every pair, in order."""
        rows = [[pair.prompt, pair.chosen, pair.rejected] for pair in self.pairs]
        return hash_value([self.objective, rows])


def pair_set(
    pairs: Sequence[PreferencePair],
    *,
    objective: str,
    groups: Sequence[str] | None = None,
    source: str = "memory",
) -> PairSet:
    """Pairs in memory as a set.

    Args:
        pairs: At least one.
        objective: Name of what the chosen answers have more of.
        groups: One label per pair; by default the prompt or, where there are fewer than
            `FEWEST_PROMPTS` different prompts, what hangs together by sharing an answer.
        source: Where the pairs came from.

    Raises:
        InvalidInputError: there is no pair, or not one label for each.
    """
    if not pairs:
        raise InvalidInputError(f"The pairs of {source!r} are empty; give at least one pair.")
    labels = list(groups) if groups is not None else default_groups(pairs)
    if len(labels) != len(pairs):
        raise InvalidInputError(
            f"There are {len(labels)} groups for {len(pairs)} pairs of {source!r}; give one each."
        )
    return PairSet(objective, tuple(pairs), tuple(labels), source)


def swapped(pairs: PairSet, *, objective: str) -> PairSet:
    """The same pairs with chosen and rejected exchanged: the opposite objective."""
    turned = tuple(
        replace(pair, chosen=pair.rejected, rejected=pair.chosen, objective=objective)
        for pair in pairs.pairs
    )
    return replace(pairs, objective=objective, pairs=turned)


def read_pairs(
    path: Path,
    *,
    objective: str | None = None,
    group_by: str | None = None,
    is_swapped: bool = False,
) -> PairSet:
    """The pairs of a JSONL or parquet file.

    Args:
        path: The file.
        objective: Its name; by default the one all rows give in their column `objective`.
        group_by: Column whose equal values belong together; by default see `pair_set`.
        is_swapped: Exchange chosen and rejected. Needs `objective`: the file names the other one.
            Pairs of `simple` swapped are pairs of `expert`.

    Raises:
        InvalidInputError: the file is missing, empty or unreadable, a row lacks a field or holds
            another type, chosen equals rejected, or the objective is not clear. The sentence names
            file and line.
    """
    rows, places = read_rows(path, what="file of pairs")
    if not rows:
        raise InvalidInputError(
            f"The file of pairs {str(path)!r} is empty; give at least one pair."
        )
    if is_swapped and objective is None:
        raise InvalidInputError(
            f"The pairs of {str(path)!r} are to be swapped; name the opposite objective."
        )
    pairs = [_pair(row, place=place) for row, place in zip(rows, places, strict=True)]
    groups = None
    if group_by is not None:
        groups = [
            _column(row, group_by, place=place) for row, place in zip(rows, places, strict=True)
        ]
    found = pair_set(
        pairs,
        objective=objective or _one_objective(rows, path=path),
        groups=groups,
        source=path.name,
    )
    return swapped(found, objective=found.objective) if is_swapped else found


def default_groups(pairs: Sequence[PreferencePair]) -> list[str]:
    """What belongs together when no column says so, one label per pair.

    Pairs on one prompt do; but a handful of generic prompts ("Say one thing you think is true")
    say nothing of what resembles what, and there pairs belong together when a chain of shared
    answers joins them.
    """
    prompts = [pair.prompt for pair in pairs]
    n_prompts = len(set(prompts))
    if n_prompts >= min(FEWEST_PROMPTS, len(pairs)):
        return prompts
    parent: dict[str, str] = {}
    for pair in pairs:
        parent[_root(parent, pair.chosen)] = _root(parent, pair.rejected)
    return [_root(parent, pair.chosen) for pair in pairs]


def text_of(value: object, *, place: str, field: str) -> str:
    """A prompt or an answer as text.

    Raises:
        InvalidInputError: it is neither a string nor a list of messages with text.
    """
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


def _pair(row: Mapping[str, Any], *, place: str) -> PreferencePair:
    for field in ("prompt", "chosen", "rejected"):
        if field not in row:
            raise InvalidInputError(f"{place} has no {field!r}; add it.")
    prompt, chosen, rejected = (
        text_of(row[field], place=place, field=field) for field in ("prompt", "chosen", "rejected")
    )
    if chosen == rejected:
        raise InvalidInputError(f"{place} has chosen == rejected ({chosen[:40]!r}); remove it.")
    return PreferencePair(
        prompt, chosen, rejected, str(row.get("objective", "")), str(row.get("id", ""))
    )


def _column(row: Mapping[str, Any], name: str, *, place: str) -> str:
    if name not in row:
        raise InvalidInputError(
            f"{place} has no {name!r}, by which pairs are to be grouped; add it."
        )
    return str(row[name])


def _one_objective(rows: Sequence[Mapping[str, Any]], *, path: Path) -> str:
    names = sorted({str(row.get("objective", "")) for row in rows})
    if names == [""]:
        raise InvalidInputError(
            f"The pairs of {str(path)!r} name no objective; give its name (--objective), or a "
            "column 'objective'."
        )
    if len(names) > 1:
        raise InvalidInputError(
            f"The pairs of {str(path)!r} name several objectives ({', '.join(map(repr, names))}); "
            "split the file, or give one name for all."
        )
    return names[0]


def _root(parent: dict[str, str], node: str) -> str:
    while parent.setdefault(node, node) != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
