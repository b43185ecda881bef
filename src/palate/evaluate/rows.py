"""Results as rows in one file: every figure of a report is computed from them.

An *answer* row says what one user got to one prompt by one method, and what it was worth. A *fact*
row is one measured number that is no answer: tokens per second, bytes of a user, a certificate.

The file is appended to in whole blocks. After a crash the last line may be torn: it is cut off and
said so. A row that is there twice counts once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from palate.core.errors import FormatError
from palate.core.files import append_jsonl, hash_value, read_jsonl, write_bytes_atomic

RESULTS = "results.jsonl"
VERSION = 2  # of the rows; rows before 2 have none
Key = tuple[str | int, ...]


@dataclass(frozen=True)
class AnswerRow:
    """One user's answer."""

    method: str  # name of the entrant
    user: str
    seed: int  # of the library and of the sampling
    prompt: str
    copy: int  # which of several answers to the prompt
    text: str
    rewards: Mapping[str, float]  # objective to reward in [0, 1], as the judge says
    utility: float  # the user's preference times the rewards
    shape: str = ""  # of the user's preference
    cluster: str = ""  # of users that resemble each other; empty: the user stands alone
    taken: str = ""  # method that decided: the entrant's own, or the one that `auto` took
    n_passes: float = 1.0  # of the base per sampled token, candidates included
    n_candidates: int = 1  # of best of n
    reason: str = ""  # of the decision
    lead: float = 0.0  # of the best candidate over the second, in the ranking's units
    predicted: tuple[float, float, float] | None = None  # gain over the base: estimate, low, high
    coefficients: Mapping[str, float] = field(default_factory=dict[str, float])  # by expert
    judge: str = ""
    versions: str = ""  # library and packages, in one line
    answer: str = ""  # hash of all that determined the text: equal hashes, equal texts
    n_tokens: int = 0
    log_ratio: float | None = None  # ln of the answer's probability over that under the base
    is_well_formed: bool | None = None  # None: the judge does not say

    @property
    def key(self) -> Key:
        """What must occur once."""
        return ("answer", self.method, self.user, self.seed, self.prompt, self.copy)

    def to_json(self) -> dict[str, Any]:
        """The row as plain data, with the hash of its prompt."""
        head = {"kind": "answer", "version": VERSION, "prompt_hash": hash_value(self.prompt)[:16]}
        return {**head, **asdict(self)}


@dataclass(frozen=True)
class FactRow:
    """One measured number."""

    name: str  # of the quantity
    method: str  # of which entrant; may be empty
    seed: int
    value: float
    user: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def key(self) -> Key:
        """What must occur once."""
        return ("fact", self.name, self.method, self.user, self.seed)

    def to_json(self) -> dict[str, Any]:
        """The row as plain data."""
        return {"kind": "fact", "version": VERSION, **asdict(self)}


Row = AnswerRow | FactRow


@dataclass(eq=False)
class Results:
    """A results file that is being filled."""

    path: Path | None  # None keeps rows in memory only
    rows: list[Row] = field(default_factory=list)  # in the order of the file, each key once
    notes: list[str] = field(default_factory=list)  # what was repaired, in sentences

    def __post_init__(self) -> None:
        """Note which keys are there."""
        self._keys = {row.key for row in self.rows}

    def __contains__(self, key: Key) -> bool:
        """Whether a row of this key is there."""
        return key in self._keys

    @property
    def answers(self) -> list[AnswerRow]:
        """The answer rows."""
        return [row for row in self.rows if isinstance(row, AnswerRow)]

    @property
    def facts(self) -> list[FactRow]:
        """The fact rows."""
        return [row for row in self.rows if isinstance(row, FactRow)]

    def append(self, rows: Iterable[Row]) -> None:
        """Put the rows whose keys are not there at the end of the file, flushed to disk."""
        fresh = {row.key: row for row in rows if row.key not in self._keys}
        if fresh and self.path is not None:
            append_jsonl(self.path, [row.to_json() for row in fresh.values()])
        self.rows += fresh.values()
        self._keys |= fresh.keys()


def open_results(path: Path) -> Results:
    """The rows of a results file, which is repaired where a crash cut its last line.

    Raises:
        InvalidInputError: a line before the last is not JSON.
        FormatError: a row is neither an answer nor a fact.
    """
    if not path.exists():
        return Results(path)
    notes = _cut_torn_end(path)
    rows: dict[Key, Row] = {}
    lines = read_jsonl(path, what="results file")
    for number, line in enumerate(lines, start=1):
        row = _row(line, place=f"Row {number} of {str(path)!r}")
        rows.setdefault(row.key, row)
    if len(rows) < len(lines):
        notes.append(f"{len(lines) - len(rows)} rows of {path.name} occur twice; each counts once.")
    return Results(path, list(rows.values()), notes)


def _cut_torn_end(path: Path) -> list[str]:
    """Remove a last line that was cut off; a sentence that says so, or nothing."""
    content = path.read_bytes()
    earlier, line_break, last = content.rstrip(b"\n").rpartition(b"\n")
    try:
        is_whole = not last or isinstance(json.loads(last), dict)
    except ValueError:  # no JSON, or no UTF-8
        is_whole = False
    if is_whole:
        if last and not content.endswith(b"\n"):  # only the line break is missing
            write_bytes_atomic(path, content + b"\n")
        return []
    write_bytes_atomic(path, earlier + line_break)
    return [
        f"The last line of {path.name} was cut off after {len(last)} bytes, as by a crash; it was "
        "removed and its answer will be made again."
    ]


def _row(line: Mapping[str, Any], *, place: str) -> Row:
    values = dict(line)
    kind = values.pop("kind", None)
    values.pop("prompt_hash", None)
    if kind not in ("answer", "fact"):
        raise FormatError(f"{place} is of kind {kind!r}, but an answer or a fact is needed.")
    version = values.pop("version", 1)
    if version != VERSION:
        raise FormatError(
            f"{place} is of version {version}, but rows of version {VERSION} are needed; measure "
            "anew in another folder."
        )
    if values.get("predicted") is not None:
        values["predicted"] = tuple(values["predicted"])
    try:
        return AnswerRow(**values) if kind == "answer" else FactRow(**values)
    except TypeError as error:
        raise FormatError(f"{place} does not fit ({error}); it is of another version.") from error


def answer_hash(**facts: object) -> str:
    """Hash of everything that determines a text."""
    return hash_value(facts)[:16]


def plain(value: object) -> Any:
    """The value as JSON has it: records by field, unless they say otherwise in `to_json`."""
    if hasattr(value, "to_json"):
        return plain(cast(Any, value).to_json())
    if is_dataclass(value):
        return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in cast(Sequence[Any], value)]
    return cast(Any, value).tolist() if isinstance(value, np.ndarray) else value
