"""Steps that tests of the store share."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from sqlalchemy import text

from palate.core.types import Feedback
from palate.store.database import Database
from palate.store.store import SqlProfileStore


def append_all(store: SqlProfileStore, items: Iterable[Feedback]) -> list[bool]:
    """Which of the items were new."""
    return [store.append(item) for item in items]


def files_of(database: Database) -> Iterator[Path]:
    """All files of the database, of PostgreSQL those of the whole server."""
    place = database.engine.url.database or ""
    folder, pattern = Path(place).parent, f"{Path(place).name}*"
    if not database.is_sqlite:
        with database.reading() as connection:
            folder = Path(connection.execute(text("SHOW data_directory")).scalar_one())
        pattern = "**/*"
    yield from (path for path in folder.glob(pattern) if path.is_file())


def found_in_files(database: Database, mark: str) -> list[str]:
    """Files of the database that hold these bytes."""
    return [str(path) for path in files_of(database) if mark.encode() in path.read_bytes()]
