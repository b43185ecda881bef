"""Feedback taken back leaves a belief as if it had never been given."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store.database import Database
from palate.store.erase import erase_user
from palate.store.export import export_user
from palate.store.store import SqlProfileStore
from palate.store.users import start_afresh

MakeItems = Callable[..., list[Feedback]]
PLAIN = Learner(Belief(np.zeros(3), np.eye(3)))


def withdraw(store: SqlProfileStore, key: str, user: str = "ann") -> bool:
    return store.withdraw(user, key)


def believed(store: SqlProfileStore) -> Belief:
    belief = store.belief("ann")
    assert belief is not None
    return belief


def is_same(one: Belief, other: Belief) -> bool:
    return np.array_equal(one.mean, other.mean) and np.array_equal(one.covariance, other.covariance)


@pytest.mark.parametrize("place", [0, 3, 30])
def test_a_withdrawn_verdict_has_never_been(
    store: SqlProfileStore, make_items: MakeItems, place: int
) -> None:
    items = make_items("ann", 31)
    without = [*items[:place], *items[place + 1 :]]
    for item in items:
        store.append(item)
    assert not is_same(believed(store), PLAIN.rebuild(without))
    assert withdraw(store, items[place].key)
    assert store.history("ann") == without
    assert is_same(believed(store), PLAIN.rebuild(without))
    later = make_items("ann", 3, seed=9)
    for item in later:
        store.append(item)
    assert is_same(believed(store), PLAIN.rebuild([*without, *later]))
    assert believed(store).n_observations == 33


def test_a_verdict_is_withdrawn_once_and_does_not_come_back_when_it_is_sent_again(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    (item,) = make_items("ann", 1)
    store.append(item)
    assert withdraw(store, item.key)
    assert not withdraw(store, item.key)
    assert not store.append(item)  # a retry that comes late
    assert believed(store).n_observations == 0
    assert store.append(replace(item, key="again"))
    assert believed(store).n_observations == 1


def test_what_is_not_there_cannot_be_withdrawn(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    (item,) = make_items("ann", 1)
    store.append(item)
    for user, key in (("ann", "other"), ("bob", item.key)):
        with pytest.raises(InvalidInputError, match=f"{user}' has no feedback '{key}'; see"):
            withdraw(store, key, user)
    assert store.history("ann") == [item]


def test_the_log_keeps_withdrawn_feedback_until_the_user_is_erased(
    store: SqlProfileStore, make_items: MakeItems, database: Database
) -> None:
    items = make_items("ann", 2)
    for item in items:
        store.append(item)
    withdraw(store, items[0].key)
    log = export_user(database, user="ann")["feedback"]
    assert [one["kind"] for one in log] == ["comparison", "comparison", "withdrawal"]
    assert [one["key"] for one in log] == [items[0].key, items[1].key, ""]
    assert log[2]["group"] == items[0].key
    assert erase_user(database, user="ann").n_rows == 5  # user, log of three, belief
    assert store.history("ann") == []


def test_feedback_without_a_key_stays(store: SqlProfileStore, make_items: MakeItems) -> None:
    (named, other) = make_items("ann", 2)
    nameless = replace(other, key="")
    for item in (named, nameless):
        store.append(item)
    withdraw(store, named.key)
    assert store.history("ann") == [nameless]


def test_withdrawing_what_a_fresh_start_forgot_changes_nothing(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    items = make_items("ann", 4)
    for item in items[:2]:
        store.append(item)
    start_afresh(store.database, tenant="default", name="ann")
    for item in items[2:]:
        store.append(item)
    assert withdraw(store, items[0].key)
    assert is_same(believed(store), PLAIN.rebuild(items[2:]))
