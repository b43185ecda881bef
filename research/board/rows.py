"""Answers and measured facts as rows of JSON: every figure of the report is computed from them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from palate.core.errors import FormatError
from palate.core.files import append_jsonl, read_jsonl, write_jsonl

ROWS, FACTS, VERSION = "rows.jsonl", "facts.jsonl", 1


@dataclass(frozen=True)
class Row:
    """One answer of one method."""

    method: str
    library: int  # place in the settings' libraries
    user: str
    shape: str
    prompt: str  # key of the prompt: file and hash of the text
    turns: int  # earlier ones
    seed: int  # of the board; the sampling seed follows from it and the user
    text: str
    n_tokens: int
    n_prompt_tokens: int  # as the base reads it, the method's own words included
    n_passes: float  # of the base per sampled token, candidates included
    n_candidates: int
    taken: str  # method that decided: the entrant's own, or the one that `auto` took
    answer: str  # hash of all that determined the text: equal hashes, equal texts
    log_prob: float  # of the text under its plan, nats
    whole: float
    relevance: float | None = None
    reason: str = ""
    coefficients: Mapping[str, float] = field(default_factory=dict[str, float])
    meaning: Mapping[str, float] = field(default_factory=dict[str, float])
    form: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def key(self) -> tuple[str | int, ...]:
        """What occurs once."""
        return (self.method, self.library, self.user, self.prompt, self.turns, self.seed)


@dataclass(frozen=True)
class Fact:
    """One measured number that is no answer."""

    name: str  # of the quantity
    method: str
    library: int
    user: str  # may be empty
    value: float
    unit: str = ""

    @property
    def key(self) -> tuple[str | int, ...]:
        """What occurs once."""
        return (self.name, self.method, self.library, self.user)


Line = TypeVar("Line", Row, Fact)


def append(path: Path, rows: Iterable[Row | Fact]) -> None:
    """Put rows at the end of their file, flushed to disk."""
    append_jsonl(path, [{"version": VERSION, **asdict(row)} for row in rows])


def load(path: Path, kind: type[Line]) -> list[Line]:
    """The rows of a file, each key once; a torn last line is cut off. None where there is no file.

    Raises:
        FormatError: a row is of another version or lacks a field.
    """
    if not path.is_file():
        return []
    lines = read_jsonl(path, what="file of rows", is_torn_end_dropped=True)
    if not path.read_bytes().endswith(b"\n"):
        write_jsonl(path, lines)  # what is appended must begin a line
    rows: dict[tuple[str | int, ...], Line] = {}
    for number, line in enumerate(lines, start=1):
        row = _row(line, kind, place=f"Row {number} of {str(path)!r}")
        rows.setdefault(row.key, row)
    return list(rows.values())


def _row(line: dict[str, Any], kind: type[Line], *, place: str) -> Line:
    values = dict(line)
    version = values.pop("version", None)
    if version != VERSION:
        raise FormatError(
            f"{place} is of version {version}, but rows of version {VERSION} are needed; measure "
            "anew in another folder."
        )
    names = {part.name for part in fields(kind)}
    if values.keys() != names:
        odd = sorted(values.keys() ^ names)
        raise FormatError(f"{place} has other fields than a row ({odd[0]!r}); remove the line.")
    return kind(**values)
