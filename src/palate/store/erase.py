"""Forgetting a user, with a receipt that does not name the user; clearing what deleted rows leave.

All rows of the user go in one transaction, and with them the user's number, which is never given
again: what was begun for the user before finds nobody to belong to. What the database's files
still hold is cleared at once where the database is small, and otherwise by `clear_erased`; the
receipt says what remains.

SQLite overwrites deleted rows, but cells that moved within a page before leave copies: `VACUUM`
writes the file anew, and a checkpoint empties the write-ahead log. PostgreSQL keeps dead rows in
the tables' files and everything ever written in its log: each table is written anew from its live
rows, and the log is switched on until every segment that there was has been overwritten.

Outside of this are backups, replicas, archived log segments, and blocks that a file system has
freed but not overwritten; they age out by their own rules.
"""

import sqlite3
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from sqlalchemy import Connection, delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from palate.core.errors import InvalidInputError, ProviderError
from palate.store.database import UNDONE, Database, retried
from palate.store.rows import find_number
from palate.store.tables import beliefs, erasures, feedback, responses, users

AT_ONCE_BYTES = 2**26  # a larger database is not written anew while somebody waits for a receipt


@dataclass(frozen=True)
class Receipt:
    """Proof of an erasure that does not name the user: counts of erased rows."""

    id: str
    tenant: str
    n_feedback: int
    n_responses: int
    n_rows: int  # rows of all tables
    erased_at: float  # seconds since 1970
    is_cleared: bool  # whether nothing remains in the database's files
    remains: str  # what remains there, and until when
    kind: Literal["erasure-receipt"] = "erasure-receipt"
    schema_version: int = 2

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
    receipt, counts = str(uuid.uuid4()), dict[str, int]()
    with database.writing() as connection:
        number = find_number(connection, tenant=tenant, name=user, is_locked=True)
        for table in (feedback, responses, beliefs):
            own = table.c.user == number
            query = select(func.count()).select_from(table).where(own)
            counts[table.name] = connection.execute(query).scalar_one()
            connection.execute(delete(table).where(own))
        connection.execute(delete(users).where(users.c.id == number))
        connection.execute(
            insert(erasures).values(
                id=receipt,
                tenant=tenant,
                n_rows=sum(counts.values()) + (number is not None),
                erased_at=time.time(),
                n_feedback=counts["feedback"],
                n_responses=counts["responses"],
                remains=REMAINS,
            )
        )
    if n_bytes(database) <= AT_ONCE_BYTES:
        clear_erased(database)
    return list_receipts(database, tenant=tenant, identifier=receipt)[0]


def clear_erased(database: Database) -> None:
    """Clear what erased users left in the database's files, and note it in their receipts.

    The database is written anew: writers wait, on PostgreSQL readers too.
    """
    with database.reading() as connection:
        is_open = erasures.c.remains != ""
        waiting = connection.execute(select(erasures.c.id).where(is_open)).scalars().all()
    if waiting:
        remains = clear(database)
        with database.writing() as connection:
            done = update(erasures).where(erasures.c.id.in_(waiting))
            connection.execute(done.values(remains=remains))


def list_receipts(
    database: Database, *, tenant: str = "default", identifier: str | None = None
) -> list[Receipt]:
    """Receipts of the tenant, oldest first; only the one of an identifier, if given."""
    query = select(erasures).where(erasures.c.tenant == tenant).order_by(erasures.c.erased_at)
    if identifier is not None:
        query = query.where(erasures.c.id == identifier)
    with database.reading() as connection:
        rows = connection.execute(query).mappings()
        fields = [{str(name): value for name, value in row.items()} for row in rows]
    return [Receipt(**values, is_cleared=values["remains"] == "") for values in fields]


ATTEMPTS = 50  # readers may hold the write-ahead log for a while
PAUSE_SECONDS = 0.1  # that each attempt waits for them
LOCKED = "55P03"  # PostgreSQL's word for a lock that did not come in time
REMAINS = "deleted rows in the database's files, until `palate users receipts` clears them"
REMAINS_IN_LOG = (
    "the write-ahead log of the PostgreSQL server, until it has overwritten or dropped it; a role "
    "with pg_monitor, pg_checkpoint and pg_switch_wal lets `palate users receipts` clear it"
)
REWRITTEN = {  # tables of what users said, each with a column to write anew
    "users": "created_at",
    "beliefs": "gain",
    "feedback": "created_at",
    "responses": "created_at",
}
SEGMENTS = "SELECT name FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' ORDER BY name"


def n_bytes(database: Database) -> int:
    """Size of the database that `clear` writes anew, without PostgreSQL's log."""
    size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    if not database.is_sqlite:
        size = "SELECT pg_database_size(current_database())"
    with database.reading() as connection:
        return int(connection.execute(text(size)).scalar_one())


def clear(database: Database) -> str:
    """Clear what was deleted before this call; what remains and until when, or an empty text."""
    return _clear_sqlite(database) if database.is_sqlite else _clear_postgres(database)


def _clear_sqlite(database: Database) -> str:
    is_fresh = False
    raw = database.engine.raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(1000 * PAUSE_SECONDS)}")
        for _ in range(ATTEMPTS):
            try:
                if not is_fresh:
                    cursor.execute("VACUUM")
                    is_fresh = True
                is_busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                (n_free,) = cursor.execute("PRAGMA freelist_count").fetchone()
            except sqlite3.OperationalError:  # locked, or no room for a second copy
                continue
            if not is_busy and not n_free:
                return ""
    finally:
        raw.invalidate()  # the short wait is not for others to inherit
    return REMAINS


def _clear_postgres(database: Database) -> str:
    remains = REMAINS
    with suppress(DBAPIError, ProviderError):  # locked for long, or a role without these rights
        retried(partial(_rewrite_tables, database), n_tries=ATTEMPTS, states=(LOCKED, *UNDONE))
        remains = REMAINS_IN_LOG
        with database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            remains = "" if _overwrite_log(connection) else remains
    return remains


def _rewrite_tables(database: Database) -> None:
    with database.writing() as connection:
        # shorter than others wait until a deadlock with this one ends one of them
        for limit, value in (("lock_timeout", 1000 * PAUSE_SECONDS), ("statement_timeout", 0)):
            connection.execute(text(f"SET LOCAL {limit} = {int(value)}"))
        connection.execute(text(f"LOCK TABLE {', '.join(REWRITTEN)}"))
        for table, column in REWRITTEN.items():  # live rows only, whoever still reads
            changed = f"{column} TYPE double precision USING {column} + 0"
            connection.execute(text(f"ALTER TABLE {table} ALTER {changed}"))


def _overwrite_log(connection: Connection) -> bool:
    """Whether every segment of the log that there was has been overwritten or dropped."""

    def advance() -> str:
        connection.execute(text("SELECT pg_logical_emit_message(false, 'palate', '')"))
        connection.execute(text("SELECT pg_switch_wal()"))  # fills the segment with zeros
        connection.execute(text("CHECKPOINT"))  # drops older segments, or lets them wait for use
        current = "SELECT pg_walfile_name(pg_current_wal_insert_lsn())"
        return str(connection.execute(text(current)).scalar_one())

    current = advance()
    segments = connection.execute(text(SEGMENTS)).scalars().all()
    if segments[0] < current:  # a replica or a setting holds old segments
        return False
    while current <= segments[-1]:
        current = advance()
    return True
