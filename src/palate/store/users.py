"""Users apart from feedback: added, listed, changed, started afresh, and how much is stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update

from palate.core.errors import FormatError
from palate.store.database import Database
from palate.store.rows import find_number, insert_if_absent, last_position, lock_user
from palate.store.tables import beliefs, feedback, marks, responses, users


@dataclass(frozen=True)
class User:
    """A user of a tenant."""

    number: int  # grows with each new user; the place in the list
    name: str
    created_at: float  # seconds since 1970
    preference: dict[str, float] | None  # shares by objective as the user stated them
    instruction: str | None  # the preference in the user's own words
    n_feedback: int


def add_user(
    database: Database, *, tenant: str, name: str, preference: Mapping[str, float] | None = None
) -> bool:
    """Add a user; false where the user was there, who is then left alone."""
    with database.writing() as connection:
        if find_number(connection, tenant=tenant, name=name) is not None:
            return False
        number = lock_user(connection, tenant=tenant, name=name)
        connection.execute(update(users).where(users.c.id == number).values(preference=preference))
    return True


def find_user(database: Database, *, tenant: str, name: str) -> User | None:
    """The user, or `None`."""
    return next(iter(list_users(database, tenant=tenant, name=name)), None)


def list_users(
    database: Database,
    *,
    tenant: str,
    name: str | None = None,
    after: int = 0,
    limit: int | None = None,
) -> list[User]:
    """Users of the tenant by arrival, from after a number on; only the one of a name, if given."""
    columns = (users.c.name, users.c.created_at, users.c.preference, users.c.instruction)
    query = (
        select(users.c.id, *columns, func.count(feedback.c.position))
        .outerjoin(feedback, feedback.c.user == users.c.id)
        .where(users.c.tenant == tenant, users.c.id > after)
        .group_by(users.c.id)
        .order_by(users.c.id)
        .limit(limit)
    )
    if name is not None:
        query = query.where(users.c.name == name)
    with database.reading() as connection:
        return [User(*row) for row in connection.execute(query)]


def change_user(
    database: Database, *, tenant: str, name: str, **values: Mapping[str, float] | str | None
) -> bool:
    """Set `preference` or `instruction`, or take it back; false where there is no such user."""
    with database.writing() as connection:
        result = connection.execute(
            update(users).where(users.c.tenant == tenant, users.c.name == name).values(**values)
        )
        return result.rowcount == 1


def start_afresh(database: Database, *, tenant: str, name: str) -> bool:
    """Learn only from later feedback, but keep the log; false where there is no such user."""
    with database.writing() as connection:
        number = find_number(connection, tenant=tenant, name=name, is_locked=True)
        if number is None:
            return False
        connection.execute(delete(beliefs).where(beliefs.c.user == number))
        newest = last_position(connection, number)
        connection.execute(update(users).where(users.c.id == number).values(forgotten=newest))
    return True


def tenant_usage(database: Database, *, tenant: str) -> tuple[int, int]:
    """Users of the tenant, and the length of all that is stored of them, characters or bytes."""
    length: Any = func.length
    own = select(users.c.id).where(users.c.tenant == tenant)
    texts = (responses.c.prompt, responses.c.shown, responses.c.features, responses.c.tokens)
    sizes = [
        select(func.coalesce(func.sum(sum(map(length, columns))), 0)).where(table.c.user.in_(own))
        for table, columns in (
            (responses, texts),
            (feedback, (feedback.c.features, feedback.c.group)),
        )
    ]
    with database.reading() as connection:
        n_users = connection.execute(select(func.count()).select_from(own.subquery())).scalar_one()
        return n_users, sum(int(connection.execute(size).scalar_one()) for size in sizes)


def require_mark(database: Database, *, name: str, value: str, remedy: str) -> None:
    """Set a mark of the database, which then stays.

    Raises:
        FormatError: the mark was set to something else; the message ends with the remedy.
    """
    with database.writing() as connection:  # of several servers that start at once, one sets it
        insert_if_absent(connection, marks, name=name, value=value)
        mark = connection.execute(select(marks.c.value).where(marks.c.name == name)).scalar_one()
    if mark != value:
        raise FormatError(
            f"The database belongs to the {name} {mark[:12]}, not {value[:12]}; {remedy}."
        )
