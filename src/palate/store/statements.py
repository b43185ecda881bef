"""The statements of a migration, in SQL files beside it: one for each database, or one for both.

`v0006_receipts.py` has `v0006_receipts.sqlite.sql` and `v0006_receipts.postgresql.sql`, or the one
file `v0006_receipts.sql`. Statements have an empty line between them, and those after the line
`-- downgrade` lead back.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from alembic import op


def statements_of(migration: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """What goes to the schema of the migration at this path, and what goes back."""
    path = Path(migration)
    return partial(_execute, path, is_back=False), partial(_execute, path, is_back=True)


def _execute(path: Path, *, is_back: bool) -> None:
    own = path.with_suffix(f".{op.get_bind().dialect.name}.sql")
    text = (own if own.is_file() else path.with_suffix(".sql")).read_text()
    for statement in text.split("\n\n-- downgrade\n\n")[is_back].strip().split("\n\n"):
        op.execute(statement)
