"""The database: opened by URL, of the schema this version knows, SQLite or PostgreSQL.

SQLite writes ahead (WAL), waits for other writers, flushes every commit to disk, and overwrites
what is deleted. Every writing transaction takes the write lock at its start, so two writers never
meet half-way.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from palate.core.errors import FormatError, InvalidInputError, ProviderError

MIGRATIONS = Path(__file__).parent / "migrations"
WAIT_SECONDS = 60  # that a writer waits for the others
MIGRATION_LOCK = 727_072_001  # any number that nobody else locks on in PostgreSQL


@dataclass(frozen=True, eq=False)
class Database:
    """An open database of the newest schema.

    Attributes:
        engine: SQLAlchemy's.
    """

    engine: Engine

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of SQLite, else it is a PostgreSQL server."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """A transaction that may write; committed at the end, undone by an exception."""
        with (
            self.engine.connect().execution_options(is_writing=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """A transaction that only reads, and sees one moment."""
        options: dict[str, Any] = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self.engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def open_database(url: str) -> Database:
    """The database at a URL; an empty one gets the newest schema.

    Args:
        url: `sqlite:///users.db`, `postgresql://user:password@host/name`, or a path of a SQLite
            file.

    Raises:
        InvalidInputError: the URL is of another kind, or the folder of the file does not exist.
        ProviderError: the server cannot be reached.
        FormatError: the schema is newer than this palate, or older (migrate first).
    """
    database = connect(url)
    try:
        _require_newest(database)
    except BaseException:
        database.close()
        raise
    return database


def connect(url: str) -> Database:
    """The database at a URL, whatever its schema.

    Raises:
        InvalidInputError: the URL is of another kind, or the folder of the file does not exist.
    """
    address = url if "://" in url else f"sqlite:///{url}"
    try:
        parsed = make_url(address)
    except ArgumentError as error:
        raise InvalidInputError(f"The database URL cannot be read ({error}).") from error
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise InvalidInputError("A SQLite database needs a file; give sqlite:///FILE.")
        folder = Path(parsed.database).parent
        if not folder.is_dir():
            raise InvalidInputError(
                f"The folder {str(folder)!r} of the database does not exist; make it first."
            )
        engine = create_engine(parsed, connect_args={"timeout": WAIT_SECONDS})
        _prepare_sqlite(engine)
        return Database(engine)
    if kind == "postgresql":
        return Database(
            create_engine(
                parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_timeout=10
            )
        )
    raise InvalidInputError(
        f"The database kind {kind!r} is unknown; use sqlite:///FILE or postgresql://..."
    )


def schema_revision(database: Database) -> str | None:
    """The schema that the database has; `None` when it is empty.

    Raises:
        ProviderError: the server cannot be reached.
        FormatError: the schema is unknown to this palate, or the tables are not palate's.
    """
    try:
        with database.reading() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
            tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
    except OperationalError as error:
        raise ProviderError(
            f"The database cannot be opened ({error.orig}); check its URL and that it runs.",
            is_retryable=True,
        ) from error
    if found is None and tables:
        raise FormatError(
            f"The database holds the table {sorted(tables)[0]!r} but no schema of palate; "
            "give a database of its own."
        )
    if found is not None and found not in _known_revisions():
        raise FormatError(
            f"The database has schema {found}, but this palate knows schemas up to "
            f"{newest_revision()}; use the newer palate that wrote it."
        )
    return found


def newest_revision() -> str:
    """The newest schema that this palate knows."""
    return _known_revisions()[0]


def migrate(database: Database, *, revision: str = "head") -> str | None:
    """Bring the database to a schema, up or down; all or nothing.

    Args:
        database: From `connect`.
        revision: A schema's number, `head` for the newest, `base` for none.

    Returns:
        The schema the database has now.

    Raises:
        InvalidInputError: there is no such schema.
        FormatError: the database's schema is unknown to this palate.
    """
    known = _known_revisions()
    if revision not in {*known, "head", "base"}:
        raise InvalidInputError(
            f"The schema {revision!r} is unknown; known are {', '.join(reversed(known))}."
        )
    schema_revision(database)
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK}
            )
        found = MigrationContext.configure(connection).get_current_revision()
        config = _alembic(connection)
        if _is_down(found, revision, known):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
    return schema_revision(database)


def _require_newest(database: Database) -> None:
    found = schema_revision(database)
    if found is None:
        migrate(database)
    elif found != newest_revision():
        raise FormatError(
            f"The database has schema {found}, older than schema {newest_revision()} of this "
            "palate; run `palate users migrate` first."
        )


def _is_down(found: str | None, revision: str, known: list[str]) -> bool:
    if revision == "base":
        return True
    target = 0 if revision == "head" else known.index(revision)
    return found is not None and target > known.index(found)


def _alembic(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def _known_revisions() -> list[str]:
    """Newest first."""
    script = ScriptDirectory.from_config(_alembic())
    return [revision.revision for revision in script.walk_revisions()]


def _prepare_sqlite(engine: Engine) -> None:
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def on_begin(connection: Connection) -> None:
        is_writing = connection.get_execution_options().get("is_writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
