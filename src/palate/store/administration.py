"""Users in a database: who is there, what is kept of one, migrating, exporting, erasing, keys."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from palate.core.errors import MissingExtraError

try:
    from sqlalchemy import func, select

    from palate.store.database import (
        Database,
        connect,
        migrate,
        newest_revision,
        open_database,
        schema_revision,
    )
    from palate.store.erase import erase_user
    from palate.store.export import export_user
    from palate.store.keys import Role, issue_key, list_keys, revoke_key
    from palate.store.tables import feedback, users
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"Databases of users need {error.name}; install palate[serve]."
    ) from error


def list_users(url: str, *, tenant: str = "default") -> list[dict[str, Any]]:
    """Identifier, arrival (seconds since 1970) and items of feedback of everybody."""
    with _opened(url) as database, database.reading() as connection:
        rows = connection.execute(
            select(users.c.name, users.c.created_at, func.count(feedback.c.position))
            .outerjoin(feedback, feedback.c.user == users.c.id)
            .where(users.c.tenant == tenant)
            .group_by(users.c.id, users.c.name, users.c.created_at)
            .order_by(users.c.id)
        )
        return [
            {"user": name, "created_at": created_at, "n_feedback": count}
            for name, created_at, count in rows
        ]


def migrate_users(url: str, *, revision: str = "head") -> dict[str, Any]:
    """Bring the database to a schema; says from which and to which."""
    database = connect(url)
    try:
        before = schema_revision(database)
        after = migrate(database, revision=revision)
    finally:
        database.close()
    return {"before": before, "after": after, "newest": newest_revision()}


def export_kept(url: str, *, user: str, tenant: str = "default") -> dict[str, Any]:
    """Everything about one user."""
    with _opened(url) as database:
        return export_user(database, tenant=tenant, user=user)


def erase_kept(url: str, *, user: str, tenant: str = "default") -> dict[str, Any]:
    """Erase one user; the receipt."""
    with _opened(url) as database:
        return erase_user(database, tenant=tenant, user=user).to_json()


def issue_kept_key(
    url: str, *, label: str, tenant: str = "default", role: str = "user", days: float | None = None
) -> str:
    """A new API key; the only time that it is seen."""
    lasts = None if days is None else 86_400 * days
    with _opened(url) as database:
        return issue_key(
            database, tenant=tenant, label=label, role=cast(Role, role), lasts_seconds=lasts
        )


def list_kept_keys(url: str) -> list[dict[str, Any]]:
    """What is known of all keys."""
    with _opened(url) as database:
        return [dict(vars(key)) for key in list_keys(database)]


def revoke_kept_key(url: str, *, prefix: str) -> None:
    """Stop a key from working."""
    with _opened(url) as database:
        revoke_key(database, prefix=prefix)


@contextmanager
def _opened(url: str) -> Generator[Database]:
    database = open_database(url)
    try:
        yield database
    finally:
        database.close()
