"""Everything about one user, as JSON."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import select

from palate.core.errors import InvalidInputError
from palate.store.database import Database
from palate.store.responses import response_of
from palate.store.rows import feedback_of, find_number, read_belief
from palate.store.tables import feedback, responses, users


def export_user(database: Database, *, tenant: str = "default", user: str) -> dict[str, Any]:
    """All data about the user: log, belief, answers; times are seconds since 1970.

    Raises:
        InvalidInputError: the user is unknown.
    """
    with database.reading() as connection:
        number = find_number(connection, tenant=tenant, name=user)
        if number is None:
            raise InvalidInputError(
                f"The user {user!r} is unknown to the tenant {tenant!r}; see who is known "
                "with `palate users list`."
            )
        row = connection.execute(select(users).where(users.c.id == number)).one()
        belief, learner = read_belief(connection, number)
        log = connection.execute(
            select(feedback).where(feedback.c.user == number).order_by(feedback.c.position)
        )
        answers = connection.execute(
            select(responses).where(responses.c.user == number).order_by(responses.c.created_at)
        )
        return {
            "kind": "user-export",
            "schema_version": 1,
            "tenant": tenant,
            "user": user,
            "created_at": row.created_at,
            "preference": row.preference,
            "instruction": row.instruction,
            "n_forgotten": row.forgotten,
            "belief": None
            if belief is None
            else {
                "mean": belief.mean.tolist(),
                "covariance": belief.covariance.tolist(),
                "n_observations": belief.n_observations,
                "gain": belief.gain,
                "learner": learner,
            },
            "feedback": [
                {"created_at": one.created_at, **asdict(feedback_of(one, name=user))} for one in log
            ],
            "responses": [
                {"created_at": one.created_at, **asdict(response_of(one, user=user))}
                for one in answers
            ],
        }
