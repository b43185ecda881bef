"""Clearing what deleted rows leave in a database's files.

SQLite overwrites deleted rows, but cells that moved within a page before leave copies: `VACUUM`
writes the file anew, and a checkpoint empties the write-ahead log. PostgreSQL keeps dead rows in
the tables' files and everything ever written in its log: each table is written anew from its live
rows, and the log is switched on until every segment that there was has been overwritten.

Outside of this are backups, replicas, archived log segments, and blocks that a file system has
freed but not overwritten; they age out by their own rules.
"""

import sqlite3
from contextlib import suppress
from functools import partial

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from palate.core.errors import ProviderError
from palate.store.database import UNDONE, Database, retried

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
