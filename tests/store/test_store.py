from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from palate.core.errors import InvalidInputError
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.preferences.settings import LearningSettings
from palate.store.database import Database
from palate.store.erase import erase_user
from palate.store.responses import Response, find_response, record_response
from palate.store.store import SqlProfileStore
from palate.store.users import change_user
from research.preferences.store_faults import stored_and_rebuilt
from store_steps import append_all

MakeItems = Callable[..., list[Feedback]]


def test_a_store_gives_back_what_it_got_in_order(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    items = make_items("ann", 30)
    assert all(store.append(item) for item in items)
    assert store.history("ann") == items
    assert store.users() == ["ann"]


def test_the_stored_belief_is_the_one_rebuilt_from_the_log(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    for item in make_items("ann", 57):
        store.append(item)
    stored, rebuilt = stored_and_rebuilt(store, "ann")
    assert stored is not None
    assert np.array_equal(stored.mean, rebuilt.mean)
    assert np.array_equal(stored.covariance, rebuilt.covariance)
    assert (stored.n_observations, stored.gain) == (57, rebuilt.gain)


def test_the_same_key_twice_is_the_same_feedback(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    (item,) = make_items("ann", 1)
    assert store.append(item)
    assert not store.append(item)
    assert len(store.history("ann")) == 1
    assert store.append(replace(item, user="bob"))  # keys are each user's own
    with pytest.raises(InvalidInputError, match="other feedback"):
        store.append(replace(item, label=1.0 - item.label))


def test_feedback_without_a_key_is_always_new(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    item = replace(make_items("ann", 1)[0], key="")
    assert store.append(item)
    assert store.append(item)
    assert len(store.history("ann")) == 2


def test_a_refused_item_leaves_nothing_behind(store: SqlProfileStore) -> None:
    wrong = Feedback("ann", "comparison", (1.0,), 1.0, key="wrong")
    with pytest.raises(InvalidInputError, match="1 features"):
        store.append(wrong)
    assert store.history("ann") == []
    assert store.users() == []


def test_tenants_share_nothing(store: SqlProfileStore, make_items: MakeItems) -> None:
    other = replace(store, tenant="other")
    (item,) = make_items("ann", 1)
    store.append(item)
    assert other.belief("ann") is None
    assert other.history("ann") == []
    assert other.append(item)
    assert erase_user(store.database, tenant="other", user="ann").n_rows == 3
    assert len(store.history("ann")) == 1


def test_a_new_prior_rebuilds_beliefs_from_the_log(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    items = make_items("ann", 10)
    append_all(store, items[:9])
    changed = replace(
        store,
        learner=Learner(Belief(np.ones(3), 2.0 * np.eye(3)), settings=LearningSettings(gain=2.0)),
    )
    wanted = changed.learner.rebuild(items[:9])
    found = changed.belief("ann")
    assert found is not None
    assert np.array_equal(found.mean, wanted.mean)
    changed.append(items[9])
    stored, rebuilt = stored_and_rebuilt(changed, "ann")
    assert stored is not None
    assert np.array_equal(stored.mean, rebuilt.mean)
    assert stored_and_rebuilt(store, "ann")[0] is None  # stale for the old prior


def test_a_lost_belief_comes_back_from_the_log(
    store: SqlProfileStore, make_items: MakeItems, database: Database
) -> None:
    items = make_items("ann", 30)
    append_all(store, items)
    before = store.belief("ann")
    with database.writing() as connection:
        connection.execute(text("DELETE FROM beliefs"))
    after = store.belief("ann")
    assert before is not None
    assert after is not None
    assert np.array_equal(before.mean, after.mean)


def test_feedback_cannot_be_changed(
    store: SqlProfileStore, make_items: MakeItems, database: Database
) -> None:
    append_all(store, make_items("ann", 2))
    with pytest.raises(DBAPIError, match="only ever appended"), database.writing() as connection:
        connection.execute(text("UPDATE feedback SET label = 0.5"))


def test_an_unknown_user_has_no_belief(store: SqlProfileStore) -> None:
    assert store.belief("nobody") is None
    assert store.history("nobody") == []
    assert stored_and_rebuilt(store, "nobody")[0] is None


def test_a_user_needs_an_identifier(store: SqlProfileStore) -> None:
    with pytest.raises(InvalidInputError, match="identifier"):
        store.append(Feedback("", "comparison", (0.0, 0.0, 1.0), 1.0))


def test_numbers_survive_bit_for_bit(store: SqlProfileStore) -> None:
    odd = (0.1 + 0.2, 1e-308, -1.7976931348623157e308 / 1e300)
    item = Feedback("ann", "rating", odd, 1 / 3, group="prompt ü", key="k")
    store.append(item)
    assert store.history("ann") == [item]


def test_a_stale_belief_is_not_learned_on_but_rebuilt(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    """At the thirty-first item a learner takes the belief as it is, if it is its own."""
    items = make_items("ann", 31)
    append_all(store, items[:30])
    other = Learner(Belief(np.full(3, 2.0), 0.1 * np.eye(3)))
    later = SqlProfileStore(store.database, other)
    assert later.append(items[30])
    found, rebuilt = stored_and_rebuilt(later, "ann")
    assert found is not None
    assert np.array_equal(found.mean, rebuilt.mean)


def test_what_one_database_cannot_store_no_database_takes(
    store: SqlProfileStore, database: Database, make_items: MakeItems
) -> None:
    (item,) = make_items("ann", 1)
    for bad in ("a\0b", "half \ud83d"):
        response = Response("r", "ann", bad, ("x",), (), "soup")
        for attempt in (
            lambda bad=bad: store.append(replace(item, user=bad)),
            lambda bad=bad: store.append(replace(item, key=bad)),
            lambda bad=bad: store.append(replace(item, kind="rating", group=bad)),
            lambda response=response: record_response(database, response),
            lambda bad=bad: find_response(database, bad),
            lambda bad=bad: store.belief(bad),
            lambda bad=bad: change_user(database, tenant="default", name="ann", instruction=bad),
        ):
            with pytest.raises(InvalidInputError, match="NUL or half a surrogate pair; remove"):
                attempt()
    assert store.users() == []
    with pytest.raises(InvalidInputError, match="half a surrogate pair"):
        record_response(database, Response("r", "ann", "p", ("half \ud83d",), (), "soup"))
    record_response(database, Response("r", "ann", "p", ("a\0b",), (), "soup"))
    found = find_response(database, "r")
    assert found is not None
    assert found.shown == ("a\0b",)
