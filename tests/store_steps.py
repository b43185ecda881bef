"""Steps that tests of the store share."""

from collections.abc import Iterable

from palate.core.types import Feedback
from palate.store.store import SqlProfileStore


def append_all(store: SqlProfileStore, items: Iterable[Feedback]) -> list[bool]:
    """Which of the items were new."""
    return [store.append(item) for item in items]
