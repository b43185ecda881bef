"""Forgetting a user, with a receipt that does not name the user.

All rows of the user go in one transaction. What a database leaves behind is then cleared: SQLite
overwrites deleted content with zeros and empties the write-ahead log into the file; PostgreSQL
vacuums dead rows away. Backups, replicas and PostgreSQL's own log segments are outside the
database and age out by their own rules.
"""

import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import delete, func, insert, select, text

from palate.core.errors import InvalidInputError
from palate.store.database import Database
from palate.store.rows import find_number
from palate.store.tables import beliefs, erasures, feedback, responses, users

CLEAR_ATTEMPTS = 50  # readers may hold the write-ahead log for a while
CLEAR_PAUSE_SECONDS = 0.1  # that each attempt waits for them


@dataclass(frozen=True)
class Receipt:
    """Proof of an erasure that does not name the user: counts of erased rows."""

    id: str  # kept in the table `erasures`
    tenant: str
    n_feedback: int
    n_responses: int
    n_rows: int  # rows of all tables
    erased_at: float  # seconds since 1970
    # whether the deleted content was also cleared from the database's files; false when another
    # connection kept the write-ahead log open all the while
    is_cleared: bool
    kind: Literal["erasure-receipt"] = "erasure-receipt"
    schema_version: int = 1

    def to_json(self) -> dict[str, Any]:
        """The receipt as plain data."""
        return asdict(self)


def erase_user(database: Database, *, tenant: str = "default", user: str) -> Receipt:
    """Erase everything about one user.

    An unknown user is no error: the receipt counts zero rows. Feedback that arrives afterwards
    is of a new user.

    Raises:
        InvalidInputError: the identifier is empty.
    """
    if not user:
        raise InvalidInputError("Erasing needs the user's identifier; it is empty.")
    now, receipt = time.time(), str(uuid.uuid4())
    with database.writing() as connection:
        number = find_number(connection, tenant=tenant, name=user, is_locked=True)
        counts: dict[str, int] = {}
        for table in (feedback, responses, beliefs):
            own = table.c.user == number
            counts[table.name] = connection.execute(
                select(func.count()).select_from(table).where(own)
            ).scalar_one()
            connection.execute(delete(table).where(own))
        connection.execute(delete(users).where(users.c.id == number))
        n_rows = sum(counts.values()) + (number is not None)
        connection.execute(
            insert(erasures).values(
                id=receipt,
                tenant=tenant,
                n_rows=n_rows,
                erased_at=now,
                n_feedback=counts["feedback"],
                n_responses=counts["responses"],
                remains="",
            )
        )
    return Receipt(
        id=receipt,
        tenant=tenant,
        n_feedback=counts["feedback"],
        n_responses=counts["responses"],
        n_rows=n_rows,
        erased_at=now,
        is_cleared=_clear(database),
    )


def _clear(database: Database) -> bool:
    """Clear deleted content from the files; false if others kept the write-ahead log open."""
    if not database.is_sqlite:
        connection = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        with connection:
            connection.execute(text("VACUUM users, beliefs, feedback, responses"))
        return True
    raw = database.engine.raw_connection()
    try:
        raw.cursor().execute(f"PRAGMA busy_timeout = {int(1000 * CLEAR_PAUSE_SECONDS)}")
        for _ in range(CLEAR_ATTEMPTS):
            busy, *_ = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return True
    finally:
        raw.invalidate()  # the short wait is not for others to inherit
    return False
