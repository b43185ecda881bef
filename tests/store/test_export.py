"""What a user gets of what is kept: their own, of their own tenant."""

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store.database import Database
from palate.store.export import export_user
from palate.store.responses import Response, record_response
from palate.store.store import SqlProfileStore
from palate.store.users import add_user
from store_steps import append_all

MakeItems = Callable[..., list[Feedback]]


def test_users_of_one_name_in_two_tenants_get_each_their_own(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    database, learner = store.database, store.learner
    items = make_items("ann", 3)
    append_all(SqlProfileStore(database, learner, tenant="a"), items[:2])
    append_all(SqlProfileStore(database, learner, tenant="b"), items[2:])
    for tenant, kept in (("a", items[:2]), ("b", items[2:])):
        found = export_user(database, tenant=tenant, user="ann")
        assert found["tenant"] == tenant
        assert [row["features"] for row in found["feedback"]] == [item.features for item in kept]
        assert found["belief"]["n_observations"] == len(kept)
    with pytest.raises(InvalidInputError, match="unknown to the tenant 'c'"):
        export_user(database, tenant="c", user="ann")


def test_everything_that_is_kept_is_in_it(database: Database) -> None:
    add_user(database, tenant="a", name="ann", preference={"short": 1.0})
    store = SqlProfileStore(database, Learner(Belief(np.zeros(2), np.eye(2))), tenant="a")
    shown = Response(
        id="chatcmpl-" + "0" * 32,
        user="ann",
        prompt="Why?",
        shown=("one", "two"),
        features=((1.0, 0.0), (0.0, 2.0)),
        method="soup",
        coefficients={"kind": 0.5},
        seed=3,
        tokens=((1, 2), (3,)),
    )
    record_response(database, shown, tenant="a")
    store.append(shown.feedback("comparison", 1.0))
    found = export_user(database, tenant="a", user="ann")
    assert found["preference"] == {"short": 1.0}
    (response,) = found["responses"]
    assert {name: response[name] for name in asdict(shown)} == asdict(shown)
    (said,) = found["feedback"]
    assert said["features"] == (1.0, -2.0)
    assert said["label"] == 1.0
