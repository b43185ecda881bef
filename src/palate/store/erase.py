"""Forgetting a user, with a receipt that does not name the user.

All rows of the user go in one transaction, and with them the user's number, which is never given
again: what was begun for the user before finds nobody to belong to. What the database's files
still hold is cleared at once where the database is small, and otherwise by `clear_erased`; the
receipt says what remains.
"""

import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import delete, func, insert, select, update

from palate.core.errors import InvalidInputError
from palate.store.clear import REMAINS, clear, n_bytes
from palate.store.database import Database
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
