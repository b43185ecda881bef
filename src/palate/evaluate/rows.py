"""Results as rows in one file: every figure of a report is computed from them.

An *answer* row says what one user got to one prompt by one method, and what it was worth. A *fact*
row is one measured number that is no answer: tokens per second, bytes of a user, a certificate.

The file is appended to in whole blocks. After a crash the last line may be torn: it is cut off and
said so. A row that is there twice counts once.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from palate.core.errors import FormatError
from palate.core.files import append_jsonl, hash_value, read_jsonl, write_text_atomic

RESULTS = "results.jsonl"
VERSION = 2  # of the rows; rows before 2 have none
Key = tuple[str | int, ...]


@dataclass(frozen=True)
class AnswerRow:
    """One user's answer.

    Attributes:
        method: Name of the entrant.
        user: Who it is for.
        seed: Of the library and of the draw.
        prompt: What was asked.
        copy: Which of several answers to the prompt.
        text: The answer.
        rewards: Objective to reward in [0, 1], as the judge says.
        utility: The user's preference times the rewards.
        shape: Of the user's preference; may be empty.
        cluster: Of users that resemble each other; empty where the user stands alone.
        taken: Method that decided: the entrant's own, or what `auto` took.
        n_passes: Passes of the base per sampled token, candidates included.
        n_candidates: Of best of n.
        reason: Of the decision, one or two sentences.
        lead: Best of n: how far the kept candidate led the second, in the ranking's units.
        predicted: Gain over the base that the library promised: estimate, low, high; `None` where
            its methods were not measured.
        coefficients: By expert, of the decision.
        judge: Who gave the rewards.
        versions: Library and packages, in one line.
        answer: Hash of everything that determined the text: equal hashes, equal texts.
        n_tokens: Of the answer.
        log_ratio: Natural logarithm of the answer's probability under its policy over that under
            the base; the mean is the KL divergence per answer. `None` where it is not known.
        is_well_formed: Whether the judge could read it; `None` where it does not say.
    """

    method: str
    user: str
    seed: int
    prompt: str
    copy: int
    text: str
    rewards: Mapping[str, float]
    utility: float
    shape: str = ""
    cluster: str = ""
    taken: str = ""
    n_passes: float = 1.0
    n_candidates: int = 1
    reason: str = ""
    lead: float = 0.0
    predicted: tuple[float, float, float] | None = None
    coefficients: Mapping[str, float] = field(default_factory=dict[str, float])
    judge: str = ""
    versions: str = ""
    answer: str = ""
    n_tokens: int = 0
    log_ratio: float | None = None
    is_well_formed: bool | None = None

    @property
    def key(self) -> Key:
        """What must occur once."""
        return ("answer", self.method, self.user, self.seed, self.prompt, self.copy)

    def to_json(self) -> dict[str, Any]:
        """The row as plain data, with the hash of its prompt."""
        told = {"kind": "answer", "version": VERSION, "prompt_hash": hash_value(self.prompt)[:16]}
        return {**told, **asdict(self)}


@dataclass(frozen=True)
class FactRow:
    """One measured number.

    Attributes:
        name: What was measured.
        method: Of which entrant; may be empty.
        seed: Of the library.
        value: The number.
        user: Of whom; may be empty.
        detail: More, as plain data.
    """

    name: str
    method: str
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
    """A results file that is being filled.

    Attributes:
        path: The file; `None` keeps rows in memory only.
        rows: In the order of the file, each key once.
        notes: What was repaired when it was opened, in sentences.
    """

    path: Path | None
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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
    found: dict[Key, Row] = {}
    lines = read_jsonl(path, what="results file")
    for number, line in enumerate(lines, start=1):
        row = _row(line, place=f"Row {number} of {str(path)!r}")
        found.setdefault(row.key, row)
    if len(found) < len(lines):
        notes.append(
            f"{len(lines) - len(found)} rows of {path.name} occur twice; each counts once."
        )
    return Results(path, list(found.values()), notes)


def _cut_torn_end(path: Path) -> list[str]:
    """Remove a last line that was cut off; a sentence that says so, or nothing."""
    text = path.read_bytes().decode("utf-8", errors="replace")
    body = text.rstrip("\n")
    start = body.rfind("\n") + 1  # of the last line
    last = body[start:]
    if not last or (_is_json(last) and text.endswith("\n")):
        return []
    if _is_json(last):  # only the line break is missing
        write_text_atomic(path, body + "\n")
        return []
    write_text_atomic(path, body[:start])
    return [
        f"The last line of {path.name} was cut off after {len(last)} characters, as by a crash; it "
        "was removed and its answer will be made again."
    ]


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


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
