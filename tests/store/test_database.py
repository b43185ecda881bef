from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from palate.core.errors import FormatError, InvalidInputError, ProviderError
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store.database import (
    Database,
    connect,
    known_revisions,
    migrate,
    open_database,
    schema_revision,
)
from palate.store.keys import find_key, issue_key, list_keys
from palate.store.responses import Response, find_response, record_response
from palate.store.rows import read_belief
from palate.store.store import SqlProfileStore
from palate.store.tables import metadata
from palate.store.users import add_user, list_users

MakeItems = Callable[..., list[Feedback]]


def test_an_empty_database_gets_the_newest_schema(empty_database: Database, url: str) -> None:
    assert schema_revision(empty_database) is None
    opened = open_database(url)
    assert schema_revision(opened) == known_revisions()[0] == "0007"
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
    for item in items:
        store.append(item)
    before = store.belief("ann")
    record_response(
        database, Response("r", "ann", "prompt", ("x", "y"), ((1.0, 0.0, 0.0),) * 2, "soup")
    )
    key = issue_key(database, label="web")
    assert migrate(database, revision="0001") == "0001"
    with pytest.raises(FormatError, match="older than schema 0007"):
        open_database(url)
    assert migrate(database) == "0007"
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


OLD_ROWS = (  # with the columns that every old schema has
    "INSERT INTO tenants (id, created_at) VALUES ('default', 1.0)",
    "INSERT INTO people (id, tenant, name, created_at) VALUES (7, 'default', 'ann', 2.0)",
    'INSERT INTO feedback (person, position, key, kind, features, label, "group", created_at) '
    "VALUES (7, 1, 'k', 'comparison', :vector, 1.0, '', 3.0)",
    "INSERT INTO beliefs (person, mean, covariance, n_observations, gain) "
    "VALUES (7, :vector, :matrix, 1, 1.5)",
    "INSERT INTO responses (id, person, prompt, shown, features, way, coefficients, seed, "
    "created_at) VALUES ('r', 7, 'Why?', '[\"x\"]', '[[1.0, 0.0]]', 'soup', '{}', 3, 4.0)",
    "INSERT INTO api_keys (prefix, tenant, label, digest, created_at, is_revoked) "
    "VALUES ('p', 'default', 'web', 'd', 5.0, FALSE)",
)


def old_rows(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """Every row of a database of an old schema, by table."""
    with database.reading() as connection:
        return {
            table: sorted(map(tuple, connection.execute(text(f"SELECT * FROM {table}"))))  # noqa: S608
            for table in ("people", "feedback", "beliefs", "responses", "api_keys")
        }


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004"])
def test_rows_of_an_old_database_are_there_after_migrating_and_after_going_back(
    empty_database: Database, url: str, revision: str
) -> None:
    migrate(empty_database, revision=revision)
    vector, matrix = np.array([0.5, -0.5]), np.eye(2)
    with empty_database.writing() as connection:
        for statement in OLD_ROWS:
            names = {"vector": vector.tobytes(), "matrix": matrix.tobytes()}
            used = {name: value for name, value in names.items() if f":{name}" in statement}
            connection.execute(text(statement), used)
        if revision == "0004":
            connection.execute(
                text("UPDATE people SET preference = '{\"kind\": 1.0}', instruction = 'Be brief.'")
            )
    before = old_rows(empty_database)
    with pytest.raises(FormatError, match=f"schema {revision}, older than schema 0007"):
        open_database(url)
    assert migrate(empty_database) == "0007"
    (user,) = list_users(empty_database, tenant="default")
    assert (user.number, user.name, user.created_at, user.n_feedback) == (7, "ann", 2.0, 1)
    is_stated = revision == "0004"
    assert user.preference == ({"kind": 1.0} if is_stated else None)
    assert user.instruction == ("Be brief." if is_stated else None)
    with empty_database.reading() as connection:
        belief, learner = read_belief(connection, 7)
    assert belief is not None
    assert belief.mean.tolist() == vector.tolist()
    assert belief.covariance.tolist() == matrix.tolist()
    assert (belief.n_observations, belief.gain, learner) == (1, 1.5, "")
    response = find_response(empty_database, "r")
    assert response == Response("r", "ann", "Why?", ("x",), ((1.0, 0.0),), "soup", seed=3)
    assert [key.prefix for key in list_keys(empty_database)] == ["p"]
    store = SqlProfileStore(empty_database, Learner(Belief(np.zeros(2), np.eye(2))))
    (item,) = store.history("ann")
    assert item == Feedback("ann", "comparison", (0.5, -0.5), 1.0, key="k")
    assert not store.append(item)  # its key is taken
    changed = pytest.raises(DBAPIError, match="only ever appended")
    with changed, empty_database.writing() as connection:
        connection.execute(text("UPDATE feedback SET label = 0.0"))
    assert migrate(empty_database, revision=revision) == revision
    assert old_rows(empty_database) == before


def test_an_erased_number_is_not_given_again_after_migrating(empty_database: Database) -> None:
    migrate(empty_database, revision="0004")
    with empty_database.writing() as connection:
        for statement in OLD_ROWS[:2]:
            connection.execute(
                text(statement.replace("(id, tenant", "(tenant").replace("(7, ", "("))
            )
        connection.execute(text("DELETE FROM people"))
    migrate(empty_database)
    add_user(empty_database, tenant="default", name="bob")
    (user,) = list_users(empty_database, tenant="default")
    assert user.number == 2


def test_down_to_nothing_and_up_again(database: Database) -> None:
    assert migrate(database, revision="base") is None
    with database.reading() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    assert migrate(database) == "0007"


def test_a_newer_schema_is_refused_with_a_sentence(database: Database, url: str) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    with pytest.raises(FormatError, match="schema 0099, but this palate knows schemas up to 0007"):
        open_database(url)
    with pytest.raises(FormatError, match="0099"):
        migrate(database)


def test_a_database_of_something_else_is_refused(empty_database: Database, url: str) -> None:
    with empty_database.writing() as connection:
        connection.execute(text("CREATE TABLE invoices (id INTEGER)"))
    with pytest.raises(FormatError, match="'invoices'"):
        open_database(url)


def test_an_unknown_schema_cannot_be_migrated_to(database: Database) -> None:
    with pytest.raises(
        InvalidInputError, match="known are 0001, 0002, 0003, 0004, 0005, 0006, 0007"
    ):
        migrate(database, revision="7")


def test_a_failed_migration_leaves_the_schema_as_it_was(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic.operations import Operations

    migrate(empty_database, revision="0001")

    execute = Operations.execute

    def fail(self: Operations, statement: str) -> None:
        if statement.startswith("CREATE TABLE"):  # the second one, after a column was added
            raise RuntimeError("interrupted")
        execute(self, statement)

    monkeypatch.setattr(Operations, "execute", fail)
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
    assert schema_revision(second) == "0007"
    store = SqlProfileStore(second, Learner(Belief(np.zeros(1), np.eye(1))))
    assert store.users() == []
    first.close()
    second.close()
