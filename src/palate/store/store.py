"""What is known of users, kept: feedback that is never lost and beliefs that follow from it.

Feedback and belief of a user change together, in one transaction that holds the user's row (on
SQLite, the database): two writers of one user follow each other, and what `append` acknowledged
is on disk. The belief is a function of the log; where the prior or the settings changed since it
was stored, it is rebuilt from the log before it is used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from palate.core.decision import Known
from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.types import Belief, Feedback
from palate.store import rows
from palate.store.database import Database
from palate.store.tables import responses, users
from palate.store.users import list_users

if TYPE_CHECKING:
    from palate.preferences.belief import Learner  # beliefs come with it; nothing is imported


@dataclass(frozen=True, eq=False)
class SqlProfileStore:
    """Feedback and beliefs of one tenant's users; tenants share nothing."""

    database: Database
    learner: "Learner"
    tenant: str = "default"
    # of the learner's features in stored vectors (`palate.store.places`); as they are by default
    places: tuple[int, ...] | None = None
    # the learner of users who said so in their own words; `None` where these say nothing
    read_words: "Callable[[str], Learner | None] | None" = None

    def learner_of(self, user: str) -> "Learner":
        """The learner of a user, whose prior has taken in the user's own words."""
        with self.database.reading() as connection:
            number = rows.find_number(connection, tenant=self.tenant, name=user)
            return self.learner if number is None else self._learner(connection, number)

    def _learner(self, connection: Connection, user: int) -> "Learner":
        if self.read_words is None:
            return self.learner
        text = rows.read_instruction(connection, user)
        return (self.read_words(text) if text else None) or self.learner

    def _digest(self, learner: "Learner") -> str:
        """Changes with the learner and with what its features are of."""
        places = self.places
        if places is None or places == tuple(range(len(places))):
            return learner.digest
        return hash_value([learner.digest, places])

    def to_stored(self, features: Sequence[float]) -> tuple[float, ...]:
        """One vector of the learner's as it is stored: zero for experts that are gone."""
        if self.places is None:
            return tuple(features)
        by_place = dict(zip(self.places, features, strict=False))  # the learner refuses widths
        return tuple(by_place.get(place, 0.0) for place in range(max(self.places) + 1))

    def has_all(self, features: Sequence[float]) -> bool:
        """Whether a stored vector has a number for each of the learner's."""
        return self.places is None or len(features) > max(self.places)

    def from_stored(self, features: Sequence[float]) -> tuple[float, ...]:
        """A stored vector as one of the learner's: zero for experts that were not there yet."""
        if self.places is None:
            return tuple(features)
        return tuple(features[p] if p < len(features) else 0.0 for p in self.places)

    def admit(self, user: str) -> int:
        """The user's number, for what is begun now; the user is added if there is none.

        Raises:
            InvalidInputError: the identifier is empty.
        """
        with self.database.reading() as connection:
            number = rows.find_number(connection, tenant=self.tenant, name=user)
        if number is None:
            with self.database.writing() as connection:
                number = rows.lock_user(connection, tenant=self.tenant, name=user)
        return number

    def append(self, feedback: Feedback, *, response: str | None = None) -> bool:
        """Keep the feedback and learn from it; false when its key was already there.

        With the identifier of the response that it judges, it is kept only while that is there;
        without one the user is added if there is none.

        Raises:
            UserErasedError: the response is not there; it went with its user.
            InvalidInputError: the key was used by this user for other feedback, or the features
                are of another width than beliefs.
        """
        name, stored = feedback.user, replace(feedback, features=self.to_stored(feedback.features))
        with self.database.writing() as connection:
            number = None
            if response is not None:
                owner = select(responses.c.user).where(responses.c.id == response)
                number = connection.execute(owner).scalar() or 0  # 0 is nobody's
            user = rows.lock_user(connection, tenant=self.tenant, name=name, number=number)
            if rows.is_known(connection, user, stored, places=self.places):
                return False
            if feedback.kind == "comment":
                rows.write_feedback(connection, user, stored)
                return True  # the belief is of other words now, and made anew when read
            learner = self._learner(connection, user)
            belief = self._current(connection, user, learner)
            if belief is None:
                history = self._history(connection, user, name)
                belief = learner.rebuild([*history, feedback])
            else:
                belief = learner.learn(
                    belief, feedback, earlier=lambda: self._history(connection, user, name)
                )
            rows.write_feedback(connection, user, stored)
            rows.write_belief(connection, user, belief, learner=self._digest(learner))
        return True

    def withdraw(self, user: str, key: str) -> bool:
        """Learn as if one item of feedback had never been; false where it was withdrawn before.

        The log keeps the item, whose key stays used, and the withdrawal.

        Raises:
            InvalidInputError: there is no such feedback of such a user.
        """
        with self.database.writing() as connection:
            number = rows.find_number(connection, tenant=self.tenant, name=user, is_locked=True)
            kinds = rows.kinds_under(connection, number or 0, key)  # 0 is nobody's
            if number is None or not kinds:
                message = f"The user {user!r} has no feedback {key!r}; see `palate users export`."
                raise InvalidInputError(message)
            if "withdrawal" in kinds:
                return False
            withdrawal = Feedback(user, "withdrawal", (), 0.0, group=key)
            rows.write_feedback(connection, number, withdrawal)
            learner = self._learner(connection, number)
            belief = learner.rebuild(self._history(connection, number, user))
            rows.write_belief(connection, number, belief, learner=self._digest(learner))
        return True

    def belief(self, user: str) -> Belief | None:
        """The belief, or `None` for an unknown user; rebuilt if prior or settings changed."""
        with self.database.reading() as connection:
            number = rows.find_number(connection, tenant=self.tenant, name=user)
            if number is None:
                return None
            learner = self._learner(connection, number)
            belief = self._current(connection, number, learner)
            if belief is None:
                belief = learner.rebuild(self._history(connection, number, user))
            return belief

    def known(self, user: str, *, apply_after: int | None) -> tuple[Known, Belief | None]:
        """What is stored of a user as methods read it, and the belief.

        A belief from at least `apply_after` items of feedback stands in place of the stated
        preference; `None` is never. Until then, where no preference is stated, it is what the
        user's own words say, and counts as one item.
        """
        belief = self.belief(user)
        with self.database.reading() as connection:
            own = (users.c.tenant == self.tenant) & (users.c.name == user)
            row = connection.execute(select(users.c.preference, users.c.id).where(own)).first()
            preference, number = (None, 0) if row is None else row
            instruction = rows.read_instruction(connection, number)
        n_items = 0 if belief is None else belief.n_observations
        if apply_after is not None and n_items >= apply_after:
            return Known(belief=belief, instruction=instruction), belief
        is_worded = self.read_words is not None and instruction and self.read_words(instruction)
        if apply_after is not None and belief is not None and preference is None and is_worded:
            believed = replace(belief, n_observations=max(1, n_items))
            return Known(belief=believed, instruction=instruction), belief
        return Known(preference=preference, instruction=instruction), belief

    def history(self, user: str) -> list[Feedback]:
        """Feedback that is learned from, oldest first; empty for an unknown user."""
        with self.database.reading() as connection:
            number = rows.find_number(connection, tenant=self.tenant, name=user)
            return [] if number is None else self._history(connection, number, user)

    def users(self) -> list[str]:
        """Identifiers of all users, in the order of their arrival."""
        return [user.name for user in list_users(self.database, tenant=self.tenant)]

    def _history(self, connection: Connection, user: int, name: str) -> list[Feedback]:
        items = rows.read_history(connection, user, name)
        return [replace(item, features=self.from_stored(item.features)) for item in items]

    def _current(self, connection: Connection, user: int, learner: "Learner") -> Belief | None:
        """The stored belief if this learner made it."""
        belief, digest = rows.read_belief(connection, user)
        return belief if digest == self._digest(learner) else None
