from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import inspect, text

from palate.core.errors import FormatError, InvalidInputError, ProviderError
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store.database import (
    Database,
    connect,
    migrate,
    newest_revision,
    open_database,
    schema_revision,
)
from palate.store.keys import find_key, issue_key
from palate.store.responses import Response, find_response, record_response
from palate.store.store import SqlProfileStore
from palate.store.tables import metadata

MakeItems = Callable[..., list[Feedback]]


def test_an_empty_database_gets_the_newest_schema(empty_database: Database, url: str) -> None:
    assert schema_revision(empty_database) is None
    opened = open_database(url)
    assert schema_revision(opened) == newest_revision() == "0004"
    opened.close()


def test_the_migrations_lead_to_the_tables_that_are_used(database: Database) -> None:
    with database.reading() as connection:
        found = inspect(connection)
        names = set(found.get_table_names()) - {"alembic_version"}
        assert names == set(metadata.tables)
        for table in metadata.tables.values():
            columns = {column["name"]: column for column in found.get_columns(table.name)}
            assert set(columns) == {column.name for column in table.columns}
            for column in table.columns:
                assert columns[column.name]["nullable"] == column.nullable
            key = found.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [column.name for column in table.primary_key]


def test_data_are_kept_down_and_up_again(
    store: SqlProfileStore, database: Database, url: str, make_items: MakeItems
) -> None:
    items = make_items("ann", 30)
    store.append_many(items)
    before = store.belief("ann")
    record_response(
        database, Response("r", "ann", "prompt", ("x", "y"), ((1.0, 0.0, 0.0),) * 2, "soup")
    )
    key = issue_key(database, label="web")
    assert migrate(database, revision="0001") == "0001"
    with pytest.raises(FormatError, match="older than schema 0004"):
        open_database(url)
    assert migrate(database) == "0004"
    assert store.history("ann") == items
    after = store.belief("ann")
    assert before is not None
    assert after is not None
    assert np.array_equal(before.mean, after.mean)
    assert np.array_equal(before.covariance, after.covariance)
    response = find_response(database, "r")
    assert response is not None
    assert response.shown == ("x", "y")
    assert find_key(database, key) is not None
    assert store.append(make_items("ann", 1, seed=5)[0])


def test_down_to_nothing_and_up_again(database: Database) -> None:
    assert migrate(database, revision="base") is None
    with database.reading() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    assert migrate(database) == "0004"


def test_a_newer_schema_is_refused_with_a_sentence(database: Database, url: str) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    with pytest.raises(FormatError, match="schema 0099, but this palate knows schemas up to 0004"):
        open_database(url)
    with pytest.raises(FormatError, match="0099"):
        migrate(database)


def test_a_database_of_something_else_is_refused(empty_database: Database, url: str) -> None:
    with empty_database.writing() as connection:
        connection.execute(text("CREATE TABLE invoices (id INTEGER)"))
    with pytest.raises(FormatError, match="'invoices'"):
        open_database(url)


def test_an_unknown_schema_cannot_be_migrated_to(database: Database) -> None:
    with pytest.raises(InvalidInputError, match="known are 0001, 0002, 0003, 0004"):
        migrate(database, revision="7")


def test_a_failed_migration_leaves_the_schema_as_it_was(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic.operations import Operations

    migrate(empty_database, revision="0001")

    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("interrupted")

    monkeypatch.setattr(Operations, "create_table", fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        migrate(empty_database)
    assert schema_revision(empty_database) == "0001"
    with empty_database.reading() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("beliefs")}
    assert "learner" not in columns


def test_a_path_is_a_sqlite_file_that_writes_ahead(tmp_path: Path) -> None:
    opened = open_database(str(tmp_path / "users.db"))
    with opened.reading() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "secure_delete": 1,
    }
    opened.close()


def test_addresses_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    for address, sentence in {
        "mysql://host/name": "kind 'mysql'",
        "sqlite://": "needs a file",
        str(tmp_path / "absent" / "users.db"): "does not exist",
        "sqlite:///x://[": "cannot be read|does not exist",
    }.items():
        with pytest.raises(InvalidInputError, match=sentence):
            connect(address)


def test_a_server_that_is_not_there_is_a_provider_error() -> None:
    with pytest.raises(ProviderError, match="cannot be opened"):
        open_database("postgresql://nobody@127.0.0.1:1/none")


def test_a_second_opener_of_a_new_file_waits_for_the_first(tmp_path: Path) -> None:
    path = str(tmp_path / "users.db")
    first, second = connect(path), connect(path)
    migrate(first)
    assert schema_revision(second) == "0004"
    store = SqlProfileStore(second, Learner(Belief(np.zeros(1), np.eye(1))))
    assert store.users() == []
    first.close()
    second.close()
