"""Preference pairs in files: JSONL or parquet with `prompt`, `chosen`, `rejected`, as TRL has them.

Another column may say which pairs a split must leave on one side (`group_by`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.types import PreferencePair
from palate.rewards.rows import read_rows, texts_of

FEWEST_PROMPTS = 20  # with fewer, prompts are generic questions and group nothing


@dataclass(frozen=True)
class PairSet:
    """Pairs of one objective, with what belongs together."""

    objective: str  # what the chosen answers have more of
    pairs: tuple[PreferencePair, ...]  # at least one
    groups: tuple[str, ...]  # pairs of one label are dependent; no split puts them on both sides
    source: str = "memory"  # where the pairs came from, for messages and cards

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    @property
    def prompts(self) -> list[str]:
        """`[pairs]`."""
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
    has_ties: bool = False,
) -> PairSet:
    """Pairs in memory as a set; see `PairSet` for the arguments. Equal answers are ties.

    Groups are by default the prompts or, with fewer than `FEWEST_PROMPTS` different prompts, the
    chains of pairs that share an answer.

    Raises:
        InvalidInputError: there is no pair, or not one label for each, or a tie without `has_ties`.
    """
    if not pairs:
        raise InvalidInputError(f"The pairs of {source!r} are empty; give at least one pair.")
    tie = next((pair for pair in pairs if pair.chosen == pair.rejected), None)
    if tie is not None and not has_ties:
        raise InvalidInputError(
            f"The pair {tie.id or tie.prompt[:40]!r} has chosen == rejected; remove it."
        )
    labels = list(groups) if groups is not None else default_groups(pairs)
    if len(labels) != len(pairs):
        raise InvalidInputError(
            f"There are {len(labels)} groups for {len(pairs)} pairs of {source!r}; give one each."
        )
    return PairSet(objective, tuple(pairs), tuple(labels), source)


def swapped(pairs: PairSet, *, objective: str) -> PairSet:
    """The same pairs with chosen and rejected exchanged: the opposite objective."""
    opposite = tuple(
        replace(pair, chosen=pair.rejected, rejected=pair.chosen, objective=objective)
        for pair in pairs.pairs
    )
    return replace(pairs, objective=objective, pairs=opposite)


def read_pairs(
    path: Path,
    *,
    objective: str | None = None,
    group_by: str | None = None,
    is_swapped: bool = False,
    has_ties: bool = False,
) -> PairSet:
    """The pairs of a JSONL or parquet file; of equal answers only with `has_ties`.

    The objective is by default the one that all rows give in their column `objective`, and groups
    are as in `pair_set`. Swapped pairs need an objective: the file names the other one.

    Raises:
        InvalidInputError: the file is missing, empty or unreadable, a row lacks a field or holds
            another type, chosen equals rejected, or the objective is not clear.
    """
    rows, places = read_rows(path, what="file of pairs")
    if is_swapped and objective is None:
        raise InvalidInputError(
            f"The pairs of {str(path)!r} are to be swapped; name the opposite objective."
        )
    named = list(zip(rows, places, strict=True))
    pairs = pair_set(
        [_pair(row, place=place, has_ties=has_ties) for row, place in named],
        objective=objective or _one_objective(rows, path=path),
        groups=None
        if group_by is None
        else [_group(row, group_by, place=place) for row, place in named],
        source=path.name,
        has_ties=has_ties,
    )
    return swapped(pairs, objective=pairs.objective) if is_swapped else pairs


def default_groups(pairs: Sequence[PreferencePair]) -> list[str]:
    """One label per pair where no column gives one.

    Pairs on one prompt belong together. But a handful of generic prompts ("Say one thing you think
    is true") group nothing; there pairs belong together that a chain of shared answers joins.
    """
    prompts = [pair.prompt for pair in pairs]
    if len(set(prompts)) >= min(FEWEST_PROMPTS, len(pairs)):
        return prompts
    parent: dict[str, str] = {}
    for pair in pairs:
        parent[_root(parent, pair.chosen)] = _root(parent, pair.rejected)
    return [_root(parent, pair.chosen) for pair in pairs]


def _pair(row: Mapping[str, Any], *, place: str, has_ties: bool) -> PreferencePair:
    prompt, chosen, rejected = texts_of(row, "chosen", "rejected", place=place)
    if chosen == rejected and not has_ties:
        raise InvalidInputError(f"{place} has chosen == rejected ({chosen[:40]!r}); remove it.")
    return PreferencePair(
        prompt, chosen, rejected, str(row.get("objective", "")), str(row.get("id", ""))
    )


def _group(row: Mapping[str, Any], name: str, *, place: str) -> str:
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
