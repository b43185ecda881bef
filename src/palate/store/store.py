"""What is known of users, kept: feedback that is never lost and beliefs that follow from it.

Feedback and belief of a user change together, in one transaction that holds the user's row (on
SQLite, the database): two writers of one user follow each other, and what `append` acknowledged
is on disk. The belief is a function of the log; where the prior or the settings changed since it
was stored, it is rebuilt from the log before it is used.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, select

from palate.core.types import Belief, Feedback
from palate.store.database import Database
from palate.store.erase import erase_user
from palate.store.rows import (
    find_user,
    is_known,
    last_position,
    lock_user,
    read_belief,
    read_history,
    require_same,
    write_belief,
    write_feedback,
)
from palate.store.tables import users

Clock = Callable[[], float]


class BeliefLearner(Protocol):
    """How beliefs follow from feedback."""

    @property
    def digest(self) -> str:
        """Changes with whatever changes the beliefs: prior and settings."""
        ...

    def start(self) -> Belief:
        """Of a user who has said nothing."""
        ...

    def learn(
        self, belief: Belief, feedback: Feedback, *, earlier: Callable[[], Sequence[Feedback]]
    ) -> Belief:
        """After one more item."""
        ...

    def rebuild(self, history: Sequence[Feedback]) -> Belief:
        """After the whole history."""
        ...


@dataclass(frozen=True, eq=False)
class SqlProfileStore:
    """Users of one tenant; a `ProfileStore`.

    Attributes:
        database: Where they are kept.
        learner: How their beliefs are learned.
        tenant: Whose users they are; users of different tenants share nothing.
        clock: Seconds since 1970.
    """

    database: Database
    learner: BeliefLearner
    tenant: str = "default"
    clock: Clock = time.time

    def append(self, feedback: Feedback) -> bool:
        """Keep the feedback and learn from it; false when its key was already there.

        Raises:
            InvalidInputError: the key was used by this user for other feedback, or the features
                are of another width than beliefs.
        """
        return self.append_many([feedback])[0]

    def append_many(self, items: Sequence[Feedback]) -> list[bool]:
        """`append` for many items in one transaction: all are kept or none.

        Raises:
            InvalidInputError: as `append`.
        """
        with self.database.writing() as connection:
            by_user: dict[str, list[int]] = {}
            for index, item in enumerate(items):
                by_user.setdefault(item.user, []).append(index)
            found: dict[int, bool] = {}
            for name in sorted(by_user):  # one order for all writers: no deadlock
                user = lock_user(connection, tenant=self.tenant, name=name, now=self.clock())
                indices = by_user[name]
                is_new = self._append_to(connection, user, [items[index] for index in indices])
                found |= dict(zip(indices, is_new, strict=True))
        return [found[index] for index in range(len(items))]

    def belief(self, user: str) -> Belief | None:
        """The belief, or `None` for an unknown user; rebuilt if prior or settings changed."""
        with self.database.reading() as connection:
            number = find_user(connection, tenant=self.tenant, name=user)
            if number is None:
                return None
            stored = read_belief(connection, number)
            if stored is not None and stored.learner == self.learner.digest:
                return stored.belief
            return self.learner.rebuild(read_history(connection, number, user))

    def history(self, user: str) -> list[Feedback]:
        """Feedback that is learned from, oldest first; empty for an unknown user."""
        with self.database.reading() as connection:
            number = find_user(connection, tenant=self.tenant, name=user)
            return [] if number is None else read_history(connection, number, user)

    def users(self) -> list[str]:
        """Identifiers of all users, in the order of their arrival."""
        with self.database.reading() as connection:
            rows = connection.execute(
                select(users.c.name).where(users.c.tenant == self.tenant).order_by(users.c.id)
            )
            return [row.name for row in rows]

    def rebuilt(self, user: str) -> tuple[Belief | None, Belief]:
        """The stored belief (`None` where stale or absent) and the one rebuilt from the log."""
        with self.database.reading() as connection:
            number = find_user(connection, tenant=self.tenant, name=user)
            if number is None:
                return None, self.learner.start()
            stored = read_belief(connection, number)
            is_current = stored is not None and stored.learner == self.learner.digest
            rebuilt = self.learner.rebuild(read_history(connection, number, user))
            return (stored.belief if stored is not None and is_current else None), rebuilt

    def erase(self, user: str) -> int:
        """Forget the user; returns how many rows went. For a receipt see `erase_user`."""
        return erase_user(self.database, tenant=self.tenant, user=user, clock=self.clock).n_rows

    def _append_to(
        self, connection: Connection, user: int, items: Sequence[Feedback]
    ) -> list[bool]:
        is_new = [not is_known(connection, user, item) for item in items]
        first = {item.key: index for index, item in reversed(list(enumerate(items))) if item.key}
        for index, item in enumerate(items):  # the same key twice among the new items
            earlier = items[first.get(item.key, index)]
            if earlier is not item:
                require_same(item, earlier)
                is_new[index] = False
        new = [item for item, holds in zip(items, is_new, strict=True) if holds]
        if new:
            belief = self._learned(connection, user, new)
            position = last_position(connection, user)
            write_feedback(connection, user, new, after=position, now=self.clock())
            write_belief(connection, user, belief, learner=self.learner.digest)
        return is_new

    def _learned(self, connection: Connection, user: int, new: Sequence[Feedback]) -> Belief:
        """The belief after the new items: learned from one, rebuilt from the log for several."""
        name = new[0].user
        stored = read_belief(connection, user)
        is_current = stored is not None and stored.learner == self.learner.digest
        if stored is None or not is_current or len(new) > 1:
            return self.learner.rebuild([*read_history(connection, user, name), *new])
        return self.learner.learn(
            stored.belief, new[0], earlier=lambda: read_history(connection, user, name)
        )
