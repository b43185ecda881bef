"""Rows of one user, read and written within a transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from sqlalchemy import Connection, Row, Table, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from palate.core.errors import InvalidInputError
from palate.core.types import Belief, Feedback, FeedbackKind
from palate.store.tables import beliefs, feedback, pack, tenants, unpack, users


@dataclass(frozen=True, eq=False)
class StoredBelief:
    """A belief as it was stored.

    Attributes:
        belief: It.
        learner: Digest of the learner it comes from.
    """

    belief: Belief
    learner: str


def find_user(connection: Connection, *, tenant: str, name: str) -> int | None:
    """The user's number, or `None`."""
    return connection.execute(
        select(users.c.id).where(users.c.tenant == tenant, users.c.name == name)
    ).scalar()


def lock_user(connection: Connection, *, tenant: str, name: str, now: float) -> int:
    """The user's number, held until the transaction ends; made if there is none.

    Raises:
        InvalidInputError: the identifier is empty.
    """
    if not name or not tenant:
        raise InvalidInputError("A user and a tenant need an identifier that is not empty.")
    require_tenant(connection, tenant=tenant, now=now)
    held = (
        select(users.c.id)
        .where(users.c.tenant == tenant, users.c.name == name)
        .with_for_update()  # SQLite has no row locks: there the whole database is held
    )
    while True:  # a user found may be erased by another before it is held
        number = connection.execute(held).scalar()
        if number is not None:
            return number
        insert_if_absent(connection, users, tenant=tenant, name=name, created_at=now, forgotten=0)


def require_tenant(connection: Connection, *, tenant: str, now: float) -> None:
    """Make the tenant if there is none."""
    found = connection.execute(select(tenants.c.id).where(tenants.c.id == tenant)).scalar()
    if found is None:
        insert_if_absent(connection, tenants, id=tenant, created_at=now)


def read_history(connection: Connection, user: int, name: str) -> list[Feedback]:
    """All feedback that is learned from, oldest first: what came after the last fresh start."""
    rows = connection.execute(
        select(feedback)
        .join(users, users.c.id == feedback.c.user)
        .where(feedback.c.user == user, feedback.c.position > users.c.forgotten)
        .order_by(feedback.c.position)
    )
    return [_feedback(row, name=name) for row in rows]


def read_log(connection: Connection, user: int, name: str) -> list[tuple[float, Feedback]]:
    """All feedback with its time, also from before a fresh start, oldest first."""
    rows = connection.execute(
        select(feedback).where(feedback.c.user == user).order_by(feedback.c.position)
    )
    return [(row.created_at, _feedback(row, name=name)) for row in rows]


def last_position(connection: Connection, user: int) -> int:
    """Position of the newest feedback; 0 when there is none."""
    statement = select(func.max(feedback.c.position)).where(feedback.c.user == user)
    return connection.execute(statement).scalar() or 0


def is_known(connection: Connection, user: int, item: Feedback) -> bool:
    """Whether the item's key was there; an item without a key never was.

    Raises:
        InvalidInputError: the key was there with other content.
    """
    if not item.key:
        return False
    row = connection.execute(
        select(feedback).where(feedback.c.user == user, feedback.c.key == item.key)
    ).first()
    if row is None:
        return False
    require_same(item, _feedback(row, name=item.user))
    return True


def require_same(item: Feedback, earlier: Feedback) -> None:
    """Refuse other content under a key that was used.

    Raises:
        InvalidInputError: kind, features, label or group differ.
    """
    if (item.kind, item.features, item.label, item.group) != (
        earlier.kind,
        earlier.features,
        earlier.label,
        earlier.group,
    ):
        raise InvalidInputError(
            f"The key {item.key!r} was used for other feedback of this user; use a new key."
        )


def write_feedback(
    connection: Connection, user: int, items: Sequence[Feedback], *, after: int, now: float
) -> None:
    """Append the items to a log that holds `after` items."""
    connection.execute(
        insert(feedback),
        [
            {
                "user": user,
                "position": after + number,
                "key": item.key or None,
                "kind": item.kind,
                "features": pack(np.array(item.features)),
                "label": float(item.label),
                "group": item.group,
                "created_at": now,
            }
            for number, item in enumerate(items, start=1)
        ],
    )


def read_belief(connection: Connection, user: int) -> StoredBelief | None:
    """The stored belief, or `None`."""
    row = connection.execute(select(beliefs).where(beliefs.c.user == user)).first()
    if row is None:
        return None
    mean = unpack(row.mean)
    covariance = unpack(row.covariance).reshape(len(mean), len(mean))
    return StoredBelief(Belief(mean, covariance, row.n_observations, row.gain), row.learner)


def write_belief(connection: Connection, user: int, belief: Belief, *, learner: str) -> None:
    """Store the belief in place of the one before."""
    values = {
        "mean": pack(belief.mean),
        "covariance": pack(belief.covariance),
        "n_observations": belief.n_observations,
        "gain": belief.gain,
        "learner": learner,
    }
    statement = _dialect_insert(connection, beliefs).values(user=user, **values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=[beliefs.c.user], set_=values)
    )


def _feedback(row: Row[Any], *, name: str) -> Feedback:
    return Feedback(
        user=name,
        kind=cast(FeedbackKind, row.kind),
        features=tuple(unpack(row.features).tolist()),
        label=row.label,
        group=row.group,
        key=row.key or "",
    )


def insert_if_absent(connection: Connection, table: Table, **values: object) -> None:
    """Insert the row unless one with its key is there; another process may be doing the same."""
    statement = _dialect_insert(connection, table).values(**values)
    connection.execute(statement.on_conflict_do_nothing())


def _dialect_insert(connection: Connection, table: Table) -> Any:
    """An insert that can say what to do on a conflict, in the database's own words."""
    kind = sqlite if connection.dialect.name == "sqlite" else postgresql
    return kind.insert(table)
