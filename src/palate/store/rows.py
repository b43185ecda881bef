"""Rows of one user, read and written within a transaction."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, cast

from sqlalchemy import Connection, Row, Select, Table, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from palate.core.decision import MAX_INSTRUCTION
from palate.core.errors import InvalidInputError, UserErasedError
from palate.core.types import Belief, Feedback, FeedbackKind
from palate.store.tables import beliefs, feedback, tenants, users


def find_number(
    connection: Connection, *, tenant: str, name: str, is_locked: bool = False
) -> int | None:
    """The user's number, or `None`; locked, nobody changes the user until the transaction ends."""
    query = select(users.c.id).where(users.c.tenant == tenant, users.c.name == name)
    if is_locked:
        query = query.with_for_update()  # SQLite has no row locks: there a writer holds all
    return connection.execute(query).scalar()


def lock_user(connection: Connection, *, tenant: str, name: str, number: int | None = None) -> int:
    """The user's number, locked until the transaction ends; added if there is none.

    Raises:
        InvalidInputError: the identifier is empty.
        UserErasedError: a number was given, and the user no longer has it.
    """
    if number is not None:
        if find_number(connection, tenant=tenant, name=name, is_locked=True) != number:
            raise UserErasedError(f"The user {name!r} was erased meanwhile; nothing was stored.")
        return number
    if not name or not tenant:
        raise InvalidInputError("A user and a tenant need an identifier that is not empty.")
    require_tenant(connection, tenant=tenant)
    while True:  # another may erase the user just before the lock
        number = find_number(connection, tenant=tenant, name=name, is_locked=True)
        if number is not None:
            return number
        insert_if_absent(connection, users, tenant=tenant, name=name, forgotten=0)


def require_tenant(connection: Connection, *, tenant: str) -> None:
    """Add the tenant if there is none."""
    if connection.execute(select(tenants.c.id).where(tenants.c.id == tenant)).scalar() is None:
        insert_if_absent(connection, tenants, id=tenant)


def read_history(connection: Connection, user: int, name: str) -> list[Feedback]:
    """All feedback that is learned from, oldest first: what counts and is no comment."""
    rows = connection.execute(_counted(user).where(feedback.c.kind != "comment"))
    return [feedback_of(row, name=name) for row in rows]


def read_instruction(connection: Connection, user: int) -> str | None:
    """The user's own words: the instruction and, a line each, the newest comments that fit."""
    instruction = connection.execute(select(users.c.instruction).where(users.c.id == user)).scalar()
    rows = connection.execute(_counted(user).where(feedback.c.kind == "comment"))
    comments = [row.group for row in rows]
    limit = MAX_INSTRUCTION - len(instruction or "")
    ends = accumulate(len(text) + 1 for text in reversed(comments))
    newest = comments[len(comments) - sum(end <= limit for end in ends) :]
    return "\n".join([*([instruction] if instruction else []), *newest]) or None


def _counted(user: int) -> Select[Any]:
    """Feedback after the last fresh start that was not withdrawn, oldest first."""
    is_end = feedback.c.kind == "withdrawal"
    withdrawn = select(feedback.c.group).where(feedback.c.user == user, is_end)
    return (
        select(feedback)
        .join(users, users.c.id == feedback.c.user)
        .where(feedback.c.user == user, feedback.c.position > users.c.forgotten, ~is_end)
        .where(func.coalesce(feedback.c.key, "").not_in(withdrawn))
        .order_by(feedback.c.position)
    )


def last_position(connection: Connection, user: int) -> int:
    """Position of the newest feedback; 0 when there is none."""
    newest = select(func.max(feedback.c.position)).where(feedback.c.user == user)
    return connection.execute(newest).scalar() or 0


def is_known(
    connection: Connection, user: int, item: Feedback, *, places: Sequence[int] | None = None
) -> bool:
    """Whether the item's key was there; an item without a key never was.

    Features at these places of a vector, all by default, are compared as far as it has them.

    Raises:
        InvalidInputError: the key was there with other content.
    """
    if not item.key:
        return False
    row = connection.execute(
        select(feedback).where(feedback.c.user == user, feedback.c.key == item.key)
    ).first()
    if row is not None and not _is_same(feedback_of(row, name=item.user), item, places):
        raise InvalidInputError(
            f"The key {item.key!r} was used for other feedback of this user; use a new key."
        )
    return row is not None


def _is_same(stored: Feedback, item: Feedback, places: Sequence[int] | None) -> bool:
    if places is None:
        return stored == item
    own = [
        place for place in places if place < len(stored.features)
    ]  # later experts were not there
    mine, theirs = ([one.features[place] for place in own] for one in (stored, item))
    return mine == theirs and replace(stored, features=()) == replace(item, features=())


def kinds_under(connection: Connection, user: int, key: str) -> Sequence[str]:
    """Kinds of the feedback with this key, of which one is a withdrawal of it."""
    is_end = (feedback.c.kind == "withdrawal") & (feedback.c.group == key)
    own = select(feedback.c.kind).where(feedback.c.user == user, (feedback.c.key == key) | is_end)
    return connection.execute(own).scalars().all()


def write_feedback(connection: Connection, user: int, item: Feedback) -> None:
    """Append the item to the log."""
    values = {**vars(item), "user": user, "key": item.key or None, "label": float(item.label)}
    position = last_position(connection, user) + 1
    connection.execute(insert(feedback).values(position=position, **values))


def feedback_of(row: Row[Any], *, name: str) -> Feedback:
    """The item in a row of the log."""
    features = tuple(row.features.tolist())
    kind = cast(FeedbackKind, row.kind)
    return Feedback(name, kind, features, row.label, group=row.group, key=row.key or "")


def read_belief(connection: Connection, user: int) -> tuple[Belief | None, str]:
    """The stored belief or `None`, and the digest of the learner that it comes from."""
    row = connection.execute(select(beliefs).where(beliefs.c.user == user)).first()
    if row is None:
        return None, ""
    covariance = row.covariance.reshape(len(row.mean), len(row.mean))
    belief = Belief(row.mean, covariance, row.n_observations, row.gain, row.is_converged)
    return belief, row.learner


def write_belief(connection: Connection, user: int, belief: Belief, *, learner: str) -> None:
    """Store the belief in place of the one before."""
    values = {**vars(belief), "learner": learner}
    statement = _dialect_insert(connection, beliefs).values(user=user, **values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=[beliefs.c.user], set_=values)
    )


def insert_if_absent(connection: Connection, table: Table, **values: object) -> None:
    """Insert the row unless one with its key is there; another process may be doing the same."""
    statement = _dialect_insert(connection, table).values(**values)
    connection.execute(statement.on_conflict_do_nothing())


def _dialect_insert(connection: Connection, table: Table) -> Any:
    """An insert with the database's own clause for conflicts."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(table)
