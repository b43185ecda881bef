"""What was shown to a user: answers, their features, and the way they came about.

Feedback refers to a response by its identifier; the features are kept here, so that feedback given
later is read with the features of what was shown, and an answer can be made again from its seed.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, insert, select, update

from palate.core.errors import InvalidInputError
from palate.core.files import dump_json
from palate.core.types import Feedback, FeedbackKind
from palate.store.database import Database
from palate.store.rows import lock_user
from palate.store.tables import responses, users


@dataclass(frozen=True)
class Response:
    """Answers that were shown together.

    Attributes:
        id: Identifier, unique over all users.
        user: To whom.
        prompt: What was asked.
        shown: The answers, in the order shown.
        features: One vector for each answer; empty until somebody needs them.
        method: How they were made: portfolio, soup, mixture ...
        coefficients: What the way used, by name.
        seed: Of the sampling.
        tokens: Token ids of each answer, from which features are computed; may be empty.
    """

    id: str
    user: str
    prompt: str
    shown: tuple[str, ...]
    features: tuple[tuple[float, ...], ...]
    method: str
    coefficients: dict[str, float] = field(default_factory=dict[str, float])
    seed: int = 0
    tokens: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Refuse features that are not one for each answer."""
        if not self.shown or len(self.features) not in (0, len(self.shown)):
            raise InvalidInputError(
                f"The response {self.id!r} has {len(self.shown)} answers and "
                f"{len(self.features)} feature vectors; give one vector for each answer."
            )

    def feedback(
        self, kind: FeedbackKind, label: float, *, answer: int = 0, key: str = ""
    ) -> Feedback:
        """What the user said of it, with the features of what was shown.

        Args:
            kind: A comparison needs two answers; ratings and thumbs are of one.
            label: As in `Feedback`.
            answer: Index of the answer that a rating or thumbs are of.
            key: Idempotency key; made from response, kind and answer where empty.

        Raises:
            InvalidInputError: a comparison of other than two answers, no such answer, or features
                that were not computed.
        """
        if not self.features:
            raise InvalidInputError(
                f"The response {self.id!r} has no features; compute them first."
            )
        if kind == "comparison":
            if len(self.features) != 2:
                raise InvalidInputError(
                    f"The response {self.id!r} showed {len(self.features)} answers; "
                    "a comparison needs two."
                )
            first, second = self.features
            vector = tuple(a - b for a, b in zip(first, second, strict=True))
        elif 0 <= answer < len(self.features):
            vector = self.features[answer]
        else:
            raise InvalidInputError(f"The response {self.id!r} has no answer {answer}.")
        return Feedback(
            user=self.user,
            kind=kind,
            features=vector,
            label=label,
            group=self.prompt if kind == "rating" else "",
            key=key or f"{self.id}/{kind}/{answer}",
        )


def record_response(
    database: Database,
    response: Response,
    *,
    tenant: str = "default",
    clock: Callable[[], float] = time.time,
) -> None:
    """Keep what was shown; the user is made if there is none.

    Raises:
        InvalidInputError: the identifier of the response is taken.
    """
    with database.writing() as connection:
        taken = connection.execute(
            select(responses.c.id).where(responses.c.id == response.id)
        ).scalar()
        if taken is not None:
            raise InvalidInputError(f"The response {response.id!r} was recorded before.")
        now = clock()
        user = lock_user(connection, tenant=tenant, name=response.user, now=now)
        connection.execute(
            insert(responses).values(
                id=response.id,
                user=user,
                prompt=response.prompt,
                shown=dump_json(list(response.shown), indent=None),
                features=dump_json([list(row) for row in response.features], indent=None),
                method=response.method,
                coefficients=dump_json(response.coefficients, indent=None),
                seed=response.seed,
                tokens=dump_json([list(row) for row in response.tokens], indent=None),
                created_at=now,
            )
        )


def find_response(
    database: Database, identifier: str, *, tenant: str = "default"
) -> Response | None:
    """The response of this tenant with this identifier, or `None`."""
    with database.reading() as connection:
        row = connection.execute(
            select(responses, users.c.name)
            .join(users, users.c.id == responses.c.user)
            .where(responses.c.id == identifier, users.c.tenant == tenant)
        ).first()
    return None if row is None else response_from_row(row, user=row.name)


def keep_features(database: Database, identifier: str, features: Sequence[Sequence[float]]) -> None:
    """Keep the features of a response that was recorded without; the first ones stay."""
    with database.writing() as connection:
        connection.execute(
            update(responses)
            .where(responses.c.id == identifier, responses.c.features == "[]")
            .values(features=dump_json([list(row) for row in features], indent=None))
        )


def response_from_row(row: Row[Any], *, user: str) -> Response:
    """The response that a row of the table holds."""
    return Response(
        id=row.id,
        user=user,
        prompt=row.prompt,
        shown=tuple(json.loads(row.shown)),
        features=tuple(tuple(vector) for vector in json.loads(row.features)),
        method=row.method,
        coefficients=json.loads(row.coefficients),
        seed=row.seed,
        tokens=tuple(tuple(ids) for ids in json.loads(row.tokens)),
    )
