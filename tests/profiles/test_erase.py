from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import inspect, text

from palate.core.errors import InvalidInputError
from palate.core.types import Belief, Feedback
from palate.people.belief import Learner
from palate.profiles import erase
from palate.profiles.database import Database, open_database
from palate.profiles.erase import erase_person
from palate.profiles.export import export_person
from palate.profiles.responses import Response, record_response
from palate.profiles.store import SqlProfileStore

MakeItems = Callable[..., list[Feedback]]
PERSON = "zyxwv-unmistakable-person"
SAID = "a-sentence-that-only-this-person-saw"


def fill(store: SqlProfileStore, database: Database, make_items: MakeItems) -> None:
    for number in range(3):
        store.append_many(make_items(f"neighbour {number}", 20, seed=number))
    store.append_many(make_items(PERSON, 60, seed=9))
    record_response(
        database, Response("response-1", PERSON, SAID, ("a" * 5000,), ((0.0, 0.0, 1.0),), "soup")
    )


def all_text(database: Database) -> str:
    with database.reading() as connection:
        tables = inspect(connection).get_table_names()
        return "".join(
            str(tuple(row))
            for table in tables
            for row in connection.execute(text(f"SELECT * FROM {table}"))  # noqa: S608
        )


def test_after_erasure_the_person_is_in_no_table(
    store: SqlProfileStore, database: Database, make_items: MakeItems
) -> None:
    fill(store, database, make_items)
    assert PERSON in all_text(database)
    receipt = erase_person(database, tenant="default", person=PERSON)
    assert (receipt.n_feedback, receipt.n_responses, receipt.n_rows) == (60, 1, 63)
    assert receipt.is_cleared
    left = all_text(database)
    assert PERSON not in left
    assert SAID not in left
    assert receipt.id in left
    assert PERSON not in str(receipt.to_json())
    assert store.belief(PERSON) is None
    assert store.people() == [f"neighbour {number}" for number in range(3)]
    assert len(store.history("neighbour 1")) == 20


def test_after_erasure_the_person_is_in_no_byte_of_the_files(
    tmp_path: Path, make_items: MakeItems
) -> None:
    database = open_database(str(tmp_path / "people.db"))
    store = SqlProfileStore(database, Learner(Belief(np.zeros(3), np.eye(3))))
    fill(store, database, make_items)

    def bytes_on_disk() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert PERSON.encode() in bytes_on_disk()
    receipt = erase_person(database, tenant="default", person=PERSON)
    assert receipt.is_cleared
    left = bytes_on_disk()
    assert PERSON.encode() not in left
    assert SAID.encode() not in left
    assert b"neighbour 1" in left
    database.close()


def test_the_receipt_says_when_a_reader_kept_the_log_open(
    tmp_path: Path, make_items: MakeItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase, "CLEAR_ATTEMPTS", 2)
    database = open_database(str(tmp_path / "people.db"))
    store = SqlProfileStore(database, Learner(Belief(np.zeros(3), np.eye(3))))
    store.append_many(make_items(PERSON, 3))
    reader = database.engine.connect()
    reader.execute(text("SELECT count(*) FROM feedback"))
    receipt = erase_person(database, tenant="default", person=PERSON)
    assert not receipt.is_cleared
    reader.close()
    assert erase_person(database, tenant="default", person=PERSON).is_cleared
    database.close()


def test_erasing_a_stranger_is_a_receipt_of_nothing(database: Database) -> None:
    assert erase_person(database, tenant="default", person="nobody").n_rows == 0
    with pytest.raises(InvalidInputError, match="identifier"):
        erase_person(database, tenant="default", person="")


def test_feedback_after_erasure_is_of_a_new_person(
    store: SqlProfileStore, make_items: MakeItems
) -> None:
    items = make_items(PERSON, 5)
    store.append_many(items)
    assert store.erase(PERSON) == 7
    assert store.append(items[0])  # its old key is forgotten too
    assert store.history(PERSON) == items[:1]


def test_what_is_exported_is_everything(
    store: SqlProfileStore, database: Database, make_items: MakeItems
) -> None:
    fill(store, database, make_items)
    found = export_person(database, person=PERSON)
    assert found["person"] == PERSON
    assert len(found["feedback"]) == 60
    assert found["feedback"][0]["features"] == make_items(PERSON, 1, seed=9)[0].features
    assert found["belief"]["n_observations"] == 60
    assert found["responses"][0]["prompt"] == SAID
    with pytest.raises(InvalidInputError, match="unknown"):
        export_person(database, person="nobody")
