"""How much a tenant stores, and what is deleted because of its age."""

from typing import Any

from sqlalchemy import delete, func, select

from palate.store.database import Database
from palate.store.tables import feedback, responses, users


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


def delete_responses(database: Database, *, before: float) -> int:
    """Delete answers that were given before this second since 1970; how many there were."""
    with database.writing() as connection:
        return connection.execute(delete(responses).where(responses.c.created_at < before)).rowcount
