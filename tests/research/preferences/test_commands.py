"""Studies of users are started with options, and print or refuse."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from palate.core.errors import CheckFailedError, InvalidInputError
from research.command_line import program
from research.preferences import portfolio, store_faults
from research.preferences.store_faults import require_passed
from voters import write_voters


def run(study: ModuleType, *arguments: str) -> str:
    result = CliRunner().invoke(program(study.main), [*arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_portfolio_of_answer_sets_is_chosen(tmp_path: Path) -> None:
    voters = str(write_voters(tmp_path))
    found = json.loads(run(portfolio, voters, "--size", "2", "--json"))
    (row,) = found["topics"]
    assert row["ours"]["mean"]["estimate"] > row["best single"]["mean"]["estimate"]
    assert "best single" in run(portfolio, voters, "--size", "2")
    with pytest.raises(InvalidInputError):
        run(portfolio, voters, "--topic", "absent")


@pytest.mark.slow
def test_the_crash_drill_loses_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "drill.db")
    sizes = ["--processes", "3", "--rows", "40", "--users", "5", "--kills", "1"]
    found = json.loads(run(store_faults, "--database", path, *sizes, "--json"))
    assert all(found["checks"].values())
    assert found["n_kills"] == 1
    assert (found["n_rows"], found["n_beliefs"]) == (120, 5)
    with pytest.raises(InvalidInputError, match="without users"):
        run(store_faults, "--database", path)


def test_a_failed_drill_is_a_failed_check() -> None:
    with pytest.raises(CheckFailedError, match="every row is there once"):
        require_passed({"checks": {"every row is there once": False}})
