"""Everything about one person, as JSON."""

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import select

from palate.core.errors import InvalidInputError
from palate.profiles.database import Database
from palate.profiles.responses import response_from_row
from palate.profiles.rows import find_person, read_belief, read_log
from palate.profiles.tables import people, responses


def export_person(database: Database, *, tenant: str = "default", person: str) -> dict[str, Any]:
    """All that is kept of the person: log, belief, what was shown; times are seconds since 1970.

    Raises:
        InvalidInputError: the person is unknown.
    """
    with database.reading() as connection:
        number = find_person(connection, tenant=tenant, name=person)
        if number is None:
            raise InvalidInputError(
                f"The person {person!r} is unknown to the tenant {tenant!r}; see who is known "
                "with `palate people list`."
            )
        history = [
            {"created_at": time, **asdict(item)}
            for time, item in read_log(connection, number, person)
        ]
        kept = connection.execute(select(people).where(people.c.id == number)).one()
        stored = read_belief(connection, number)
        shown = connection.execute(
            select(responses).where(responses.c.person == number).order_by(responses.c.created_at)
        )
        return {
            "kind": "person-export",
            "schema_version": 1,
            "tenant": tenant,
            "person": person,
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
                {"created_at": row.created_at, **asdict(response_from_row(row, person=person))}
                for row in shown
            ],
        }
