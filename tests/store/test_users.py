"""Users apart from their feedback, on every database."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from palate.core.errors import FormatError
from palate.core.types import Feedback
from palate.store.database import Database
from palate.store.export import export_user
from palate.store.responses import Response, find_response, keep_features, record_response
from palate.store.store import SqlProfileStore
from palate.store.users import (
    add_user,
    change_user,
    find_user,
    list_users,
    require_mark,
    start_afresh,
)
from store_steps import append_all

MakeItems = Callable[..., list[Feedback]]


def test_a_user_is_made_once_and_belongs_to_one_tenant(database: Database) -> None:
    assert add_user(database, tenant="a", name="ann", preference={"short": 1.0})
    assert not add_user(database, tenant="a", name="ann", preference={"kind": 1.0})
    kept = find_user(database, tenant="a", name="ann")
    assert kept is not None
    assert kept.preference == {"short": 1.0}
    assert find_user(database, tenant="b", name="ann") is None
    assert not change_user(database, tenant="b", name="ann", preference=None)
    assert not start_afresh(database, tenant="b", name="ann")


def test_a_stated_preference_can_be_changed_and_taken_back(database: Database) -> None:
    add_user(database, tenant="a", name="ann")
    for stated in ({"short": 0.5, "kind": 0.5}, None):
        assert change_user(database, tenant="a", name="ann", preference=stated)
        kept = find_user(database, tenant="a", name="ann")
        assert kept is not None
        assert kept.preference == stated


def test_the_list_goes_page_by_page_in_order_of_arrival(database: Database) -> None:
    names = [f"p{place}" for place in range(5)]
    for name in names:
        add_user(database, tenant="a", name=name)
    add_user(database, tenant="b", name="other")
    first = list_users(database, tenant="a", limit=3)
    rest = list_users(database, tenant="a", after=first[-1].number, limit=3)
    assert [user.name for user in first + rest] == names


def test_after_a_fresh_start_only_new_feedback_is_learned_from_and_the_log_is_whole(
    store: SqlProfileStore, database: Database, make_items: MakeItems
) -> None:
    old, new = make_items("ann", 7), make_items("ann", 4, seed=1)
    append_all(store, old)
    assert start_afresh(database, tenant="default", name="ann")
    fresh = store.belief("ann")
    assert fresh is not None
    assert fresh.n_observations == 0
    assert np.array_equal(fresh.mean, np.zeros(3))
    for item in new:
        assert store.append(item)
    found, expected = store.belief("ann"), store.learner.rebuild(new)
    assert found is not None
    assert np.allclose(found.mean, expected.mean, atol=1e-9)
    assert store.history("ann") == new
    assert len(export_user(database, user="ann")["feedback"]) == 11
    assert not store.append(old[0])  # a key stays used


def test_features_are_kept_once(database: Database) -> None:
    record_response(
        database, Response("r", "ann", "p", ("x", "y"), (), "soup", tokens=((1, 2), (3,)))
    )
    keep_features(database, "r", [[1.0, 2.0], [0.5, 0.25]])
    keep_features(database, "r", [[9.0, 9.0], [9.0, 9.0]])
    found = find_response(database, "r")
    assert found is not None
    assert found.features == ((1.0, 2.0), (0.5, 0.25))
    assert found.tokens == ((1, 2), (3,))
    assert found.feedback("comparison", 1.0).features == (0.5, 1.75)


def test_a_mark_set_once_must_stay(database: Database) -> None:
    require_mark(database, name="bank", value="one", remedy="give another")
    require_mark(database, name="bank", value="one", remedy="give another")
    with pytest.raises(FormatError, match="bank one, not two; give another"):
        require_mark(database, name="bank", value="two", remedy="give another")


def test_of_servers_that_start_at_once_one_sets_the_mark_and_the_others_find_it(
    database: Database,
) -> None:
    start = threading.Barrier(8)

    def mark(value: str) -> str:
        start.wait(timeout=30)
        try:
            require_mark(database, name="bank", value=value, remedy="x")
        except FormatError:
            return "refused"
        return value

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(mark, ["one", "two"] * 4))
    winners = {value for value in found if value != "refused"}
    assert len(winners) == 1
    assert found.count("refused") == 4
