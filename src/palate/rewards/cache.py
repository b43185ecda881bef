"""Scores that are computed once: an SQLite file keyed by what a score depends on.

The key is a hash of the reward's fingerprint, the prompt and the answer, so a changed model or
scale never meets an old score. Every batch is one transaction: after an interruption the file
holds whole batches and nothing else. Scores are kept as 64-bit floats: a hit is the computed
number to the bit.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import FormatError
from palate.core.files import hash_bytes
from palate.rewards.texts import require_equally_many

APPLICATION_ID = 0x70616C74  # "palt": marks the SQLite file as ours
VERSION = 1
_BUSY_SECONDS = 60.0
_KEYS_PER_QUERY = 500


class FingerprintedReward(Protocol):
    """A reward that knows what its scores depend on."""

    @property
    def objective(self) -> str:
        """Name of what it measures."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything a score depends on but the texts."""
        ...

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[ndarray, " texts"]:
        """`[texts]` in [0, 1]."""
        ...


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
        found: dict[str, float] = {}
        with closing(self._connect()) as connection:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = list(keys[start : start + _KEYS_PER_QUERY])
                marks = ",".join("?" * len(part))
                query = f"SELECT key, score FROM scores WHERE key IN ({marks})"  # noqa: S608
                found.update(connection.execute(query, part).fetchall())
        return found

    def save(self, scores: dict[str, float]) -> None:
        """Keep the scores, all of them or none.

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
class CachedReward:
    """A reward that asks the cache first.

    Attributes:
        reward: What computes a score that is not there.
        cache: Where scores are kept.
    """

    reward: FingerprintedReward
    cache: ScoreCache

    @property
    def objective(self) -> str:
        """Name of what it measures."""
        return self.reward.objective

    @property
    def fingerprint(self) -> str:
        """Hash of everything a score depends on but the texts."""
        return self.reward.fingerprint

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[ndarray, " texts"]:
        """Rewards in [0, 1], `[texts]`; each different text is computed at most once.

        Raises:
            InvalidInputError: as the reward, or there is not one answer for each prompt.
            FormatError: the file is not a cache of scores.
        """
        require_equally_many(prompts, answers)
        name = self.fingerprint.encode()
        texts = list(zip(prompts, answers, strict=True))
        keys = [hash_bytes(name, prompt.encode(), answer.encode()) for prompt, answer in texts]
        known = self.cache.load(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            scores = self.reward.score(
                [prompt for prompt, _ in missing.values()],
                [answer for _, answer in missing.values()],
            )
            computed = dict(zip(missing, scores.tolist(), strict=True))
            self.cache.save(computed)
            known.update(computed)
        return np.array([known[key] for key in keys], dtype=np.float64)


def _require_ours(connection: sqlite3.Connection, *, path: Path) -> None:
    """Make the table in a new file; refuse a file of another kind or version."""
    try:
        connection.execute("BEGIN")  # the three answers are of one moment
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        is_empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        connection.rollback()
    except sqlite3.DatabaseError as error:
        raise FormatError(
            f"The file {str(path)!r} cannot be read as a cache of scores ({error}); give another "
            "path."
        ) from error
    if is_empty and found == 0:
        with connection:
            connection.execute("BEGIN IMMEDIATE")  # one of several processes makes the table
            connection.execute(
                "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, score REAL NOT NULL) "
                "WITHOUT ROWID"
            )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
    elif (found, version) != (APPLICATION_ID, VERSION):
        raise FormatError(
            f"The file {str(path)!r} is an SQLite file of kind {found:#x} version {version}, but a "
            f"cache of scores of version {VERSION} is needed; give another path."
        )
