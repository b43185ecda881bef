"""The database of users: a file of SQLite or a PostgreSQL server, of the newest schema.

SQLite writes ahead (WAL), flushes every commit to disk, and overwrites what is deleted. Every
writing transaction takes the write lock at its start, so writers follow each other.
"""

import os
from collections.abc import Callable, Container, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from palate.core.errors import (
    FormatError,
    InvalidInputError,
    MissingExtraError,
    PalateError,
    ProviderError,
)

try:
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, StatementError
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"Databases of users need {error.name}; install palate[serve]."
    ) from error

MIGRATIONS = Path(__file__).parent / "migrations"
WAIT_SECONDS = 60  # a writer waits so long for the others
MIGRATION_LOCK = 727_072_001  # any number that nobody else locks on in PostgreSQL
UNDONE = ("40001", "40P01")  # PostgreSQL undid a transaction for another's sake
Result = TypeVar("Result")
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON")


@dataclass(frozen=True, eq=False)
class Database:
    """An open database."""

    engine: Engine

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of SQLite; otherwise it is a PostgreSQL server."""
        return self.engine.dialect.name == "sqlite"

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that may write; committed at the end, undone by an exception.

        Raises:
            ProviderError: the connection broke at the end, so that nobody knows which.
        """
        return self._transaction("READ COMMITTED", is_writing=True)  # whatever the server's default

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that only reads, and sees one moment."""
        return self._transaction("REPEATABLE READ", is_writing=False)

    @contextmanager
    def _transaction(self, isolation: str, *, is_writing: bool) -> Generator[Connection]:
        options = {"is_writing": is_writing, "isolation_level": isolation}
        if self.is_sqlite:  # knows one level
            del options["isolation_level"]
        is_ending = False
        try:
            with self.engine.connect() as connection:
                connection.execution_options(**options)
                with connection.begin():
                    yield connection
                    is_ending = is_writing
        except StatementError as error:
            if isinstance(error.orig, PalateError):  # a column refuses its value
                raise error.orig from error
            if not (is_ending and isinstance(error, DBAPIError) and error.connection_invalidated):
                raise
            raise ProviderError(
                "The connection to the database broke while it stored this, so it is not known "
                "whether it did; send it again with the same key, or look whether it is there.",
                is_retryable=True,
            ) from error

    def require_writable(self) -> None:
        """Refuse a database that cannot be written now: locked, damaged, read-only, not there.

        Raises:
            DBAPIError: what the database says.
            ProviderError: the file of SQLite was deleted or replaced, or the server only reads.
        """
        with self.writing() as connection:
            connection.execute(text("SELECT count(*) FROM marks")).scalar()
            if not self.is_sqlite:
                if connection.execute(text("SHOW transaction_read_only")).scalar() == "on":
                    raise ProviderError("The database is read-only; give one that can be written.")
                connection.execute(text("LOCK TABLE users, feedback IN ROW EXCLUSIVE MODE"))

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def retried(
    function: Callable[[], Result], *, n_tries: int = 3, states: Container[str] = UNDONE
) -> Result:
    """The function's result, tried again where PostgreSQL undid its one transaction so."""
    while True:
        n_tries -= 1
        try:
            return function()
        except DBAPIError as error:
            if not n_tries or getattr(error.orig, "sqlstate", "") not in states:
                raise


def open_database(url: str, *, wait_seconds: float = WAIT_SECONDS) -> Database:
    """The database at a URL; an empty one gets the newest schema.

    The URL is `sqlite:///users.db`, `postgresql://user:password@host/name`, or a path for SQLite.
    Whoever waits longer than `wait_seconds` for a lock, a connection or a statement gets an error.

    Raises:
        InvalidInputError: the URL is of another kind, or the folder of the file does not exist.
        ProviderError: the server cannot be reached.
        FormatError: the schema is newer than this palate, or older (migrate first).
    """
    database, newest = connect(url, wait_seconds=wait_seconds), known_revisions()[0]
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


def connect(url: str, *, wait_seconds: float = WAIT_SECONDS) -> Database:
    """The database at a URL, whatever its schema; a new file is its owner's only.

    Raises:
        InvalidInputError: the URL is of another kind, or the folder of the file does not exist.
    """
    address = url if "://" in url else f"sqlite:///{url}"
    try:
        parsed = make_url(address)
    except (ArgumentError, ValueError) as error:  # a port that is no number
        raise InvalidInputError(f"The database URL cannot be read ({error}).") from error
    kind = parsed.get_backend_name()
    if kind == "postgresql":
        server = parsed.set(drivername="postgresql+psycopg")
        wait = int(1000 * wait_seconds)
        limits = {
            "connect_timeout": max(2, int(wait_seconds)),
            "tcp_user_timeout": wait,
            "options": f"-c lock_timeout={wait} -c idle_in_transaction_session_timeout={6 * wait}"
            + f" -c statement_timeout={6 * wait if wait_seconds < WAIT_SECONDS else 0}",
        }
        return Database(
            create_engine(
                server,
                pool_pre_ping=True,
                pool_timeout=wait_seconds,
                connect_args={k: v for k, v in limits.items() if k not in parsed.query},
            )
        )
    if kind != "sqlite":
        raise InvalidInputError(
            f"The database kind {kind!r} is unknown; use sqlite:///FILE or postgresql://..."
        )
    if parsed.database in (None, "", ":memory:") or parsed.database.startswith("file:"):
        raise InvalidInputError("A SQLite database needs a file; give sqlite:///FILE.")
    folder = Path(parsed.database).parent
    if not folder.is_dir():
        raise InvalidInputError(
            f"The folder {str(folder)!r} of the database does not exist; make it first."
        )
    with suppress(FileExistsError):
        os.close(os.open(parsed.database, os.O_CREAT | os.O_EXCL, 0o600))
    engine = create_engine(
        parsed, pool_timeout=wait_seconds, connect_args={"timeout": wait_seconds}
    )
    _prepare_sqlite(engine, Path(parsed.database))
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


def _prepare_sqlite(engine: Engine, path: Path) -> None:
    opened = path.stat()

    def require_same_file(*_: object) -> None:
        try:
            is_same = os.path.samestat(path.stat(), opened)
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise ProviderError(
                "The file of the database was deleted or replaced while it was open; nothing more "
                "is stored. Bring it back, or start again.",
                is_retryable=True,
            )

    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def on_begin(connection: Connection) -> None:
        is_writing = connection.get_execution_options().get("is_writing", False)
        if is_writing:
            require_same_file()
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    event.listen(engine, "do_connect", require_same_file)  # SQLite would make an empty file
    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
