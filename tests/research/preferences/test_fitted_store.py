"""Users fitted from verdicts are in a store, and answered as they were found to want."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from palate import Library, open_store
from palate.core.errors import InvalidInputError
from palate.core.types import Interval, Objective
from research.command_line import program
from research.preferences.fitted_store import load_into, shares_of
from research.preferences.verdicts import FittedUsers, main

LONG = Objective("long", opposite="short")
SHORT = Objective("short", opposite="long")
KIND = Objective("kind", opposite="Be rude.")


def test_wanting_less_is_wanting_the_opposite_and_what_cancels_has_no_share() -> None:
    every = (LONG, SHORT, KIND)
    assert shares_of({"long": -1.0, "kind": 1.0}, every) == {"short": 0.5, "kind": 0.5}
    assert shares_of({"long": 3.0, "short": 1.0, "kind": -4.0}, every) == {"long": 1.0}
    assert shares_of({"long": 1.0, "short": -1.0}, every) == {"long": 1.0}
    assert shares_of({"length": 2.0, "kind": -1.0}, every) is None


def fitted(*, low: float) -> FittedUsers:
    """Two users over two objectives of the tiny library and the length."""
    return FittedUsers(
        ("kind", "short", "length"),
        ("ana", "bob"),
        40,
        np.array([[1.5, 0.5, 9.0], [-1.0, 2.0, 0.0]]),
        np.ones((2, 3)),
        np.array([0.5, 0.5, 1.0]),
        {},
        Interval(0.1, low, 0.2, 2, 2),
    )


def test_personal_users_get_their_own_and_others_the_populations(
    tiny_full_library: Path, tmp_path: Path
) -> None:
    library = Library.load(tiny_full_library)
    with open_store(str(tmp_path / "users.db"), library) as store:
        objectives = library.manifest.objectives
        load_into(store, fitted(low=0.05), objectives)
        assert store.known("ana").preference == {"kind": 0.75, "short": 0.25}
        decision = library.decide("Why?", store.known("ana"), method="soup")
        assert decision.coefficients["kind"] > decision.coefficients["short"] > 0
        loaded = load_into(store, fitted(low=-0.05), objectives)  # not shown to be personal
        assert loaded["ana"] == loaded["bob"] == {"kind": 0.5, "short": 0.5}
        assert store.known("bob").preference == loaded["bob"]


def test_the_command_stores_every_user_and_needs_a_library(
    tiny_full_library: Path, tmp_path: Path
) -> None:
    rows = [
        {"user_id": user, "prompt": f"p{n}", "chosen": "a b c", "rejected": "a b c d e f"}
        for user in ("ana", "bob")
        for n in range(3)
    ]
    path = tmp_path / "verdicts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [str(path), "--database", str(tmp_path / "users.db"), "--json"]
    library = ["--library", str(tiny_full_library)]
    result = CliRunner().invoke(program(main), [*words, *library], catch_exceptions=False)
    assert set(json.loads(result.output)["stored"]) == {"ana", "bob"}
    with open_store(str(tmp_path / "users.db"), Library.load(tiny_full_library)) as store:
        assert store.users() == ["ana", "bob"]
    with pytest.raises(InvalidInputError, match="give --library with --database"):
        main(path, database="users.db")
