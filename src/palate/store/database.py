"""The database of users: a file of SQLite or a PostgreSQL server, of the newest schema.

SQLite writes ahead (WAL), flushes every commit to disk, and overwrites what is deleted. Every
writing transaction takes the write lock at its start, so writers follow each other.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.errors import FormatError, InvalidInputError, MissingExtraError, ProviderError

try:
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, OperationalError
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"Databases of users need {error.name}; install palate[serve]."
    ) from error

MIGRATIONS = Path(__file__).parent / "migrations"
WAIT_SECONDS = 60  # a writer waits so long for the others
MIGRATION_LOCK = 727_072_001  # any number that nobody else locks on in PostgreSQL
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON")


@dataclass(frozen=True, eq=False)
class Database:
    """An open database."""

    engine: Engine

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of SQLite; otherwise it is a PostgreSQL server."""
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

    The URL is `sqlite:///users.db`, `postgresql://user:password@host/name`, or a path for SQLite.

    Raises:
        InvalidInputError: the URL is of another kind, or the folder of the file does not exist.
        ProviderError: the server cannot be reached.
        FormatError: the schema is newer than this palate, or older (migrate first).
    """
    database, newest = connect(url), known_revisions()[0]
    try:
        revision = schema_revision(database) or migrate(database)
    except BaseException:
        database.close()
        raise
    if revision != newest:
        database.close()
        raise FormatError(
            f"The database has schema {revision}, older than schema {newest} of this palate; run "
            "`palate users migrate` first."
        )
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
    if kind == "postgresql":
        server = parsed.set(drivername="postgresql+psycopg")
        return Database(create_engine(server, pool_pre_ping=True, pool_timeout=10))
    if kind != "sqlite":
        raise InvalidInputError(
            f"The database kind {kind!r} is unknown; use sqlite:///FILE or postgresql://..."
        )
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


def schema_revision(database: Database) -> str | None:
    """The schema that the database has; `None` when it is empty.

    Raises:
        ProviderError: the server cannot be reached.
        FormatError: the schema is unknown to this palate, or the tables are not palate's.
    """
    try:
        with database.reading() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
            tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
    except OperationalError as error:
        raise ProviderError(
            f"The database cannot be opened ({error.orig}); check its URL and that it runs.",
            is_retryable=True,
        ) from error
    if revision is None and tables:
        raise FormatError(
            f"The database holds the table {sorted(tables)[0]!r} but no schema of palate; "
            "give a database of its own."
        )
    if revision is not None and revision not in known_revisions():
        raise FormatError(
            f"The database has schema {revision}, but this palate knows schemas up to "
            f"{known_revisions()[0]}; use the newer palate that wrote it."
        )
    return revision


def migrate(database: Database, *, revision: str = "head") -> str | None:
    """Bring the database to a schema, up or down, all or nothing; the schema it has now.

    A revision is a schema's number, `head` for the newest, or `base` for none.

    Raises:
        InvalidInputError: there is no such schema.
        FormatError: the database's schema is unknown to this palate.
    """
    places = [*known_revisions(), "base"]  # newest first
    target = places[0] if revision == "head" else revision
    if target not in places:
        known = ", ".join(reversed(places[:-1]))
        raise InvalidInputError(f"The schema {revision!r} is unknown; known are {known}.")
    schema_revision(database)
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(
                text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK}
            )
        current = MigrationContext.configure(connection).get_current_revision() or "base"
        is_down = target == "base" or places.index(target) > places.index(current)
        (command.downgrade if is_down else command.upgrade)(_alembic(connection), target)
    return schema_revision(database)


def _alembic(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def known_revisions() -> list[str]:
    """Schemas that this palate knows, newest first."""
    script = ScriptDirectory.from_config(_alembic())
    return [revision.revision for revision in script.walk_revisions()]


def _prepare_sqlite(engine: Engine) -> None:
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def on_begin(connection: Connection) -> None:
        is_writing = connection.get_execution_options().get("is_writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
