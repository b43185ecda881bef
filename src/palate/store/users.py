"""One user apart from feedback: made, listed, with a stated preference, started afresh."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update

from palate.core.errors import FormatError
from palate.core.files import dump_json
from palate.store.database import Database
from palate.store.rows import find_user, insert_if_absent, last_position, lock_user
from palate.store.tables import beliefs, feedback, marks, users

Clock = Callable[[], float]


@dataclass(frozen=True)
class User:
    """Somebody who is known.

    Attributes:
        number: Grows with each new user; the place in the list.
        name: Identifier within the tenant.
        created_at: Seconds since 1970.
        preference: Shares by objective as the user stated them, or `None`.
        n_feedback: Items of the log.
        instruction: What the user wants, in the user's own words, or `None`.
    """

    number: int
    name: str
    created_at: float
    preference: dict[str, float] | None
    n_feedback: int = 0
    instruction: str | None = None


def add_user(
    database: Database,
    *,
    tenant: str,
    name: str,
    preference: Mapping[str, float] | None = None,
    clock: Clock = time.time,
) -> bool:
    """Make a user; false where the user was there, who is then left alone."""
    with database.writing() as connection:
        if find_user(connection, tenant=tenant, name=name) is not None:
            return False
        number = lock_user(connection, tenant=tenant, name=name, now=clock())
        connection.execute(
            update(users).where(users.c.id == number).values(preference=_text(preference))
        )
    return True


def find(database: Database, *, tenant: str, name: str) -> User | None:
    """The user, or `None`; without the number of items."""
    with database.reading() as connection:
        row = connection.execute(
            select(users).where(users.c.tenant == tenant, users.c.name == name)
        ).first()
    if row is None:
        return None
    stated = None if row.preference is None else json.loads(row.preference)
    return User(row.id, row.name, row.created_at, stated, instruction=row.instruction)


def list_users(database: Database, *, tenant: str, after: int = 0, limit: int = 100) -> list[User]:
    """Users of the tenant by arrival, from after a number on."""
    with database.reading() as connection:
        rows = connection.execute(
            select(users.c.id, users.c.name, users.c.created_at, func.count(feedback.c.position))
            .outerjoin(feedback, feedback.c.user == users.c.id)
            .where(users.c.tenant == tenant, users.c.id > after)
            .group_by(users.c.id, users.c.name, users.c.created_at)
            .order_by(users.c.id)
            .limit(limit)
        ).all()
    return [User(number, name, created, None, count) for number, name, created, count in rows]


def state_preference(
    database: Database, *, tenant: str, name: str, preference: Mapping[str, float] | None
) -> bool:
    """Keep what the user says to want, or take it back; false where there is no such user."""
    with database.writing() as connection:
        done = connection.execute(
            update(users)
            .where(users.c.tenant == tenant, users.c.name == name)
            .values(preference=_text(preference))
        )
        return done.rowcount == 1


def state_instruction(
    database: Database, *, tenant: str, name: str, instruction: str | None
) -> bool:
    """Keep what the user wants in words, or take it back; false where there is no such user."""
    with database.writing() as connection:
        done = connection.execute(
            update(users)
            .where(users.c.tenant == tenant, users.c.name == name)
            .values(instruction=instruction)
        )
        return done.rowcount == 1


def start_afresh(database: Database, *, tenant: str, name: str) -> bool:
    """Learn only from what the user says from now on; the log is kept.

    Returns:
        False where there is no such user.
    """
    with database.writing() as connection:
        if find_user(connection, tenant=tenant, name=name) is None:
            return False
        number = lock_user(connection, tenant=tenant, name=name, now=0.0)
        connection.execute(delete(beliefs).where(beliefs.c.user == number))
        connection.execute(
            update(users)
            .where(users.c.id == number)
            .values(forgotten=last_position(connection, number))
        )
    return True


def require_mark(database: Database, *, name: str, value: str, remedy: str) -> None:
    """Set a mark of the database, or find it as it was set.

    Args:
        database: Open.
        name: Of the mark.
        value: What it must be.
        remedy: What to do if it is another, for the message.

    Raises:
        FormatError: the mark was set to something else.
    """
    with database.writing() as connection:  # of several servers that start at once, one sets it
        insert_if_absent(connection, marks, name=name, value=value)
        found = connection.execute(select(marks.c.value).where(marks.c.name == name)).scalar_one()
    if found != value:
        raise FormatError(
            f"The database belongs to the {name} {found[:12]}, not {value[:12]}; {remedy}."
        )


def _text(preference: Mapping[str, float] | None) -> str | None:
    return None if preference is None else dump_json(dict(preference), indent=None)
