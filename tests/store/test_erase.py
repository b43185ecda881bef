from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import inspect, text

from palate.core.errors import InvalidInputError, UserErasedError
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store import erase
from palate.store.database import Database, open_database
from palate.store.erase import clear_erased, erase_user, list_receipts
from palate.store.export import export_user
from palate.store.responses import Response, keep_features, record_response
from palate.store.store import SqlProfileStore
from store_steps import append_all

MakeItems = Callable[..., list[Feedback]]
USER = "zyxwv-unmistakable-user"
SAID = "a-sentence-that-only-this-user-saw"


def fill(store: SqlProfileStore, database: Database, make_items: MakeItems) -> None:
    for number in range(3):
        append_all(store, make_items(f"neighbour {number}", 20, seed=number))
    append_all(store, make_items(USER, 60, seed=9))
    record_response(
        database, Response("response-1", USER, SAID, ("a" * 5000,), ((0.0, 0.0, 1.0),), "soup")
    )


def all_text(database: Database) -> str:
    with database.reading() as connection:
        tables = inspect(connection).get_table_names()
        return "".join(
            str(tuple(row))
            for table in tables
            for row in connection.execute(text(f"SELECT * FROM {table}"))  # noqa: S608
        )


def test_after_erasure_the_user_is_in_no_table(
    store: SqlProfileStore, database: Database, make_items: MakeItems
) -> None:
    fill(store, database, make_items)
    assert USER in all_text(database)
    receipt = erase_user(database, tenant="default", user=USER)
    assert (receipt.n_feedback, receipt.n_responses, receipt.n_rows) == (60, 1, 63)
    assert receipt.is_cleared
    left = all_text(database)
    assert USER not in left
    assert SAID not in left
    assert receipt.id in left
    assert USER not in str(receipt.to_json())
    assert store.belief(USER) is None
    assert store.users() == [f"neighbour {number}" for number in range(3)]
    assert len(store.history("neighbour 1")) == 20


def test_after_erasure_the_user_is_in_no_byte_of_the_files(
    tmp_path: Path, make_items: MakeItems
) -> None:
    database = open_database(str(tmp_path / "users.db"))
    store = SqlProfileStore(database, Learner(Belief(np.zeros(3), np.eye(3))))
    fill(store, database, make_items)

    def bytes_on_disk() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert USER.encode() in bytes_on_disk()
    receipt = erase_user(database, tenant="default", user=USER)
    assert receipt.is_cleared
    left = bytes_on_disk()
    assert USER.encode() not in left
    assert SAID.encode() not in left
    assert b"neighbour 1" in left
    database.close()


def test_the_receipt_says_when_a_reader_kept_the_log_open(
    tmp_path: Path, make_items: MakeItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "ATTEMPTS", 2)
    database = open_database(str(tmp_path / "users.db"))
    store = SqlProfileStore(database, Learner(Belief(np.zeros(3), np.eye(3))))
    append_all(store, make_items(USER, 3))
    reader = database.engine.connect()
    reader.execute(text("SELECT count(*) FROM feedback"))
    receipt = erase_user(database, tenant="default", user=USER)
    assert not receipt.is_cleared
    assert "until `palate users receipts`" in receipt.remains
    reader.close()
    assert list_receipts(database) == [receipt]
    clear_erased(database)
    (cleared,) = list_receipts(database, identifier=receipt.id)
    assert cleared == replace(receipt, is_cleared=True, remains="")
    database.close()


def test_a_large_database_is_cleared_later(
    store: SqlProfileStore, make_items: MakeItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "AT_ONCE_BYTES", 1)
    append_all(store, make_items(USER, 3))
    assert not erase_user(store.database, user=USER).is_cleared
    clear_erased(store.database)
    assert all(receipt.is_cleared for receipt in list_receipts(store.database))


def test_what_was_begun_before_an_erasure_is_dropped(
    store: SqlProfileStore, database: Database, make_items: MakeItems
) -> None:
    (verdict,) = make_items(USER, 1)
    number = store.admit(USER)
    assert store.admit(USER) == number
    shown = Response("before", USER, "Why?", ("x",), (), "soup")
    record_response(database, shown, number=number)
    erase_user(database, user=USER)
    late = Response("late", USER, "Why?", ("x",), (), "soup")
    with pytest.raises(UserErasedError, match="erased meanwhile; nothing was stored"):
        record_response(database, late, number=number)
    with pytest.raises(UserErasedError):
        store.append(verdict, response="before")
    keep_features(database, "before", [[1.0]])
    assert store.users() == []
    assert store.admit(USER) != number
    with pytest.raises(UserErasedError):  # the user is there again, but it is another
        record_response(database, late, number=number)
    assert store.history(USER) == []


def test_a_verdict_on_a_response_is_kept_while_it_is_there(
    store: SqlProfileStore, database: Database, make_items: MakeItems
) -> None:
    record_response(database, Response("r", USER, "Why?", ("x",), (), "soup"))
    assert store.append(make_items(USER, 1)[0], response="r")
    assert store.users() == [USER]


def test_erasing_a_stranger_is_a_receipt_of_nothing(database: Database) -> None:
    assert erase_user(database, tenant="default", user="nobody").n_rows == 0
    with pytest.raises(InvalidInputError, match="identifier"):
        erase_user(database, tenant="default", user="")


def test_feedback_after_erasure_is_of_a_new_user(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    items = make_items(USER, 5)
    append_all(store, items)
    assert erase_user(store.database, user=USER).n_rows == 7
    assert store.append(items[0])  # its old key is forgotten too
    assert store.history(USER) == items[:1]


def test_what_is_exported_is_everything(
    store: SqlProfileStore, database: Database, make_items: MakeItems
) -> None:
    fill(store, database, make_items)
    found = export_user(database, user=USER)
    assert found["user"] == USER
    assert len(found["feedback"]) == 60
    assert found["feedback"][0]["features"] == make_items(USER, 1, seed=9)[0].features
    assert found["belief"]["n_observations"] == 60
    assert found["responses"][0]["prompt"] == SAID
    with pytest.raises(InvalidInputError, match="unknown"):
        export_user(database, user="nobody")
