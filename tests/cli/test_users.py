import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from palate.cli.app import app
from palate.core.errors import FormatError, InvalidInputError
from palate.core.types import Belief, Feedback
from palate.library.library import Library
from palate.library.store import open_store
from palate.preferences.belief import Learner
from palate.store.database import connect, migrate, open_database
from palate.store.store import SqlProfileStore


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def kept(tmp_path: Path) -> str:
    path = str(tmp_path / "users.db")
    database = open_database(path)
    store = SqlProfileStore(database, Learner(Belief(np.zeros(2), np.eye(2))))
    for user in ("ann", "bob"):
        store.append(Feedback(user, "comparison", (1.0, -1.0), 1.0, key="k"))
    database.close()
    return path


def test_users_are_listed_exported_and_erased(kept: str, tmp_path: Path) -> None:
    assert [
        row["user"] for row in json.loads(run("users", "list", "--database", kept, "--json"))
    ] == [
        "ann",
        "bob",
    ]
    assert "ann" in run("users", "list", "--database", kept)
    out = tmp_path / "ann.json"
    run("users", "export", "ann", "--database", kept, "--out", str(out))
    assert json.loads(out.read_text())["feedback"][0]["label"] == 1.0
    assert json.loads(run("users", "export", "bob", "--database", kept))["user"] == "bob"
    receipt = json.loads(run("users", "erase", "ann", "--database", kept, "--yes", "--json"))
    assert receipt["n_feedback"] == 1
    assert "ann" not in run("users", "list", "--database", kept)


def test_erasing_asks_first(kept: str) -> None:
    refused = CliRunner().invoke(app, ["users", "erase", "ann", "--database", kept], input="n\n")
    assert refused.exit_code != 0
    assert "ann" in run("users", "list", "--database", kept)


def test_databases_are_migrated(kept: str) -> None:
    database = connect(kept)
    migrate(database, revision="0001")
    database.close()
    with pytest.raises(FormatError, match="palate users migrate"):
        CliRunner().invoke(app, ["users", "list", "--database", kept], catch_exceptions=False)
    found = json.loads(run("users", "migrate", "--database", kept, "--json"))
    assert (found["before"], found["after"]) == ("0001", "0007")
    assert "bob" in run("users", "list", "--database", kept)


def test_keys_are_issued_listed_and_revoked(kept: str) -> None:
    key = run("keys", "issue", "--database", kept, "--label", "web").strip()
    (row,) = json.loads(run("keys", "list", "--database", kept, "--json"))
    assert key.startswith(f"pk_{row['prefix']}_")
    run("keys", "revoke", row["prefix"], "--database", kept)
    assert "yes" in run("keys", "list", "--database", kept)


def test_feedback_is_withdrawn_by_its_keys(tiny_soup_library: Path, tmp_path: Path) -> None:
    path, library = str(tmp_path / "users.db"), Library.load(tiny_soup_library)
    answers = [library.generate("Why?", method="base", seed=seed) for seed in (1, 2)]
    first, second = [one for one in answers if not isinstance(one, list)]
    with open_store(path, library) as store:
        store.record("ana", chosen=first, rejected=second, key="one")
        store.record("ana", chosen=second, rejected=first, key="two")
    arguments = ["users", "withdraw", str(tiny_soup_library), "ana", "one", "two", "one"]
    rows = json.loads(run(*arguments, "--database", path, "--json"))
    assert [(row["key"], row["is_new"]) for row in rows] == [
        ("one", True),
        ("two", True),
        ("one", False),
    ]
    with open_store(path, library) as store:
        assert store.known("ana").belief is None
    with pytest.raises(InvalidInputError, match="no feedback 'three'"):
        run(*arguments[:4], "three", "--database", path)
