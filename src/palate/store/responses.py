"""What was shown to a user: answers, their features, and the method that gave them.

Feedback refers to a response by its identifier. The response keeps its features, so that later
feedback is learned with the features of what was shown, and a seed makes an answer again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from palate.core.errors import InvalidInputError
from palate.core.types import Feedback, FeedbackKind
from palate.store.database import Database
from palate.store.rows import lock_user
from palate.store.tables import responses, users


@dataclass
class Response:
    """Answers that were shown together; their features may come later."""

    id: str  # identifier, unique over all users
    user: str
    prompt: str  # the user's own conversation as the base reads it
    shown: tuple[str, ...]  # the answers, in the order shown
    features: tuple[tuple[float, ...], ...]  # one for each answer; empty until somebody needs them
    method: str
    coefficients: Mapping[str, float] = field(default_factory=dict[str, float])  # by expert
    seed: int = 0
    tokens: tuple[tuple[int, ...], ...] = ()  # ids by answer, for features; may be empty
    # by answer, log-probability of its tokens as they were sampled, nats; `None` where not known
    log_probs: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse features that are not one for each answer."""
        if not self.shown or len(self.features) not in (0, len(self.shown)):
            raise InvalidInputError(
                f"The response {self.id!r} has {len(self.shown)} answers and "
                f"{len(self.features)} feature vectors; give one vector for each answer."
            )

    def feedback(
        self,
        kind: FeedbackKind,
        label: float,
        *,
        answer: int = 0,
        key: str = "",
        other: Sequence[float] | None = None,
    ) -> Feedback:
        """The user's verdict, with the features of what was shown.

        A rating or thumbs are of one answer; a comparison is with the second one, or with another
        answer of the features `other`, which are taken off. An empty key is made from response,
        kind and answer.

        Raises:
            InvalidInputError: a comparison of other than two answers, no such answer, or features
                that were not computed.
        """
        n_answers = len(self.features)
        if not n_answers:
            raise InvalidInputError(
                f"The response {self.id!r} has no features; compute them first."
            )
        if kind == "comparison" and other is None and n_answers != 2:
            raise InvalidInputError(
                f"The response {self.id!r} showed {n_answers} answers; a comparison needs two."
            )
        if not 0 <= answer < n_answers:
            raise InvalidInputError(f"The response {self.id!r} has no answer {answer}.")
        features = self.features[answer]
        if kind == "comparison" and other is None:
            other = self.features[1]
        if other is not None:
            features = tuple(a - b for a, b in zip(features, other, strict=True))
        group = self.prompt if kind == "rating" else ""
        key = key or f"{self.id}/{kind}/{answer}"
        return Feedback(self.user, kind, features, label, group=group, key=key)


_COLUMNS = tuple(field.name for field in fields(Response) if field.name != "user")


def record_response(
    database: Database, response: Response, *, tenant: str = "default", number: int | None = None
) -> None:
    """Keep what was shown; the user is added if there is none, but not where a number is given.

    The number is the one that `SqlProfileStore.admit` gave when the answer was begun.

    Raises:
        InvalidInputError: the identifier of the response is taken.
        UserErasedError: the user was erased since the answer was begun.
    """
    with database.writing() as connection:
        taken = select(responses.c.id).where(responses.c.id == response.id)
        if connection.execute(taken).scalar() is not None:
            raise InvalidInputError(f"The response {response.id!r} was recorded before.")
        values = {name: getattr(response, name) for name in _COLUMNS}
        owner = lock_user(connection, tenant=tenant, name=response.user, number=number)
        connection.execute(insert(responses).values(user=owner, **values))


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
    return None if row is None else response_of(row, user=row.name)


def keep_features(database: Database, identifier: str, features: Sequence[Sequence[float]]) -> None:
    """Keep the features of a response that was recorded without; the first ones stay."""
    is_empty = (responses.c.id == identifier) & (responses.c.features == [])
    with database.writing() as connection:
        connection.execute(update(responses).where(is_empty).values(features=features))


def delete_responses(database: Database, *, before: float) -> int:
    """Delete answers that were given before this second since 1970; how many there were."""
    with database.writing() as connection:
        return connection.execute(delete(responses).where(responses.c.created_at < before)).rowcount


def response_of(row: Row[Any], *, user: str) -> Response:
    """The response in a row of the table."""
    return Response(user=user, **{name: getattr(row, name) for name in _COLUMNS})
