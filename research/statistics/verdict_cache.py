"""Verdicts that are requested once: an SQLite file keyed by everything a verdict depends on.

Every batch is one transaction: after an interruption the file holds whole batches and nothing else.
Scores are stored as 64-bit floats: a hit is the computed number to the bit.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import FormatError
from palate.core.files import hash_value
from palate.rewards.judge import SYSTEM, EndpointJudge, Question

PROTOCOL = 1  # to be raised when the same question is put in other words
APPLICATION_ID = 0x70616C74  # "palt": marks the SQLite file as ours
VERSION = 1
_BUSY_SECONDS = 60.0
_KEYS_PER_QUERY = 500


@dataclass(frozen=True)
class ScoreCache:
    """Scores on disk. Several processes may use one file.

    Attributes:
        path: The SQLite file; made when it is first written.
    """

    path: Path

    def load(self, keys: Sequence[str]) -> dict[str, float]:
        """The scores that are there, by key.

        Raises:
            FormatError: the file is not a cache of scores, or of another version.
        """
        if not self.path.exists():
            return {}
        scores: dict[str, float] = {}
        with closing(self._connect()) as connection:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = list(keys[start : start + _KEYS_PER_QUERY])
                marks = ",".join("?" * len(part))
                query = f"SELECT key, score FROM scores WHERE key IN ({marks})"  # noqa: S608
                scores.update(connection.execute(query, part).fetchall())
        return scores

    def save(self, scores: dict[str, float]) -> None:
        """Save the scores, all of them or none.

        Raises:
            FormatError: the file is not a cache of scores, or of another version.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection, connection:
            connection.executemany(
                "INSERT OR REPLACE INTO scores (key, score) VALUES (?, ?)", list(scores.items())
            )

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS)
        except sqlite3.OperationalError as error:
            raise FormatError(
                f"The cache of scores {str(self.path)!r} cannot be opened ({error}); give the path "
                "of a file in a folder that can be written."
            ) from error
        try:
            _require_ours(connection, path=self.path)
        except BaseException:
            connection.close()
            raise
        return connection


@dataclass(frozen=True)
class CachedJudge:
    """A judge whose verdicts are looked up first, under everything that they depend on.

    Attributes:
        judge: Compares the answers whose verdicts are not there.
        cache: File of verdicts.
    """

    judge: EndpointJudge
    cache: ScoreCache

    def compare(self, questions: Sequence[Question]) -> Float[ndarray, " questions"]:
        """`[questions]`: 1 the first, 0 the second, 0.5 a tie; each is requested once.

        Raises:
            ProviderError: as the judge.
        """
        keys = [self._key(question) for question in questions]
        known = self.cache.load(keys)
        for key, question in zip(keys, questions, strict=True):
            if key not in known:
                known[key] = float(self.judge.compare([question])[0])
                self.cache.save({key: known[key]})
        return np.array([known[key] for key in keys])

    def _key(self, question: Question) -> str:
        return hash_value([PROTOCOL, SYSTEM, self.judge.model, question.text])


def _require_ours(connection: sqlite3.Connection, *, path: Path) -> None:
    """Make the table in a new file; refuse a file of another kind or version."""
    try:
        connection.execute("BEGIN")  # the three values are of one moment
        kind = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        is_empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        connection.rollback()
    except sqlite3.DatabaseError as error:
        raise FormatError(
            f"The file {str(path)!r} cannot be read as a cache of scores ({error}); give another "
            "path."
        ) from error
    if is_empty and kind == 0:
        with connection:
            connection.execute("BEGIN IMMEDIATE")  # one of several processes makes the table
            connection.execute(
                "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, score REAL NOT NULL) "
                "WITHOUT ROWID"
            )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
    elif (kind, version) != (APPLICATION_ID, VERSION):
        raise FormatError(
            f"The file {str(path)!r} is an SQLite file of kind {kind:#x} version {version}, but a "
            f"cache of scores of version {VERSION} is needed; give another path."
        )
