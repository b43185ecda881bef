"""Everything about one user, as JSON."""

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import select

from palate.core.errors import InvalidInputError
from palate.store.database import Database
from palate.store.responses import response_from_row
from palate.store.rows import find_user, read_belief, read_log
from palate.store.tables import responses, users


def export_user(database: Database, *, tenant: str = "default", user: str) -> dict[str, Any]:
    """All that is kept of the user: log, belief, what was shown; times are seconds since 1970.

    Raises:
        InvalidInputError: the user is unknown.
    """
    with database.reading() as connection:
        number = find_user(connection, tenant=tenant, name=user)
        if number is None:
            raise InvalidInputError(
                f"The user {user!r} is unknown to the tenant {tenant!r}; see who is known "
                "with `palate users list`."
            )
        history = [
            {"created_at": time, **asdict(item)}
            for time, item in read_log(connection, number, user)
        ]
        kept = connection.execute(select(users).where(users.c.id == number)).one()
        stored = read_belief(connection, number)
        shown = connection.execute(
            select(responses).where(responses.c.user == number).order_by(responses.c.created_at)
        )
        return {
            "kind": "user-export",
            "schema_version": 1,
            "tenant": tenant,
            "user": user,
            "created_at": kept.created_at,
            "preference": None if kept.preference is None else json.loads(kept.preference),
            "instruction": kept.instruction,
            "n_forgotten": kept.forgotten,
            "belief": None
            if stored is None
            else {
                "mean": stored.belief.mean.tolist(),
                "covariance": stored.belief.covariance.tolist(),
                "n_observations": stored.belief.n_observations,
                "gain": stored.belief.gain,
                "learner": stored.learner,
            },
            "feedback": history,
            "responses": [
                {"created_at": row.created_at, **asdict(response_from_row(row, user=user))}
                for row in shown
            ],
        }
