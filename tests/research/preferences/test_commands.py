"""Studies of users are started with options, and print or refuse."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from palate.core.errors import CheckFailedError, InvalidInputError
from research.command_line import program
from research.preferences import portfolio, replay_voters, store_faults
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


def test_voters_are_replayed(tmp_path: Path) -> None:
    voters = str(write_voters(tmp_path))
    found = json.loads(run(replay_voters, voters, "--votes", "0,5", "--json"))
    assert [row["votes"] for row in found["topics"]] == [0, 5]
    first, later = found["topics"]
    assert later["ours, chosen"]["estimate"] > first["population"]["estimate"] + 0.03
    assert later["ours, chosen"]["low"] < later["ours, chosen"]["estimate"]
    assert later["users"] == later["ours, chosen"]["n"]
    assert "few" in run(replay_voters, voters, "--votes", "5")  # users, for the mean over topics


def test_bad_numbers_and_topics_of_a_replay_are_refused(tmp_path: Path) -> None:
    voters = str(write_voters(tmp_path))
    for arguments in (
        [voters, "--votes", "five"],
        [voters, "--votes", "-1"],
        [voters, "--votes", "25"],  # of 24
        [voters, "--topic", "absent"],
        [str(tmp_path / "absent")],
    ):
        with pytest.raises(InvalidInputError):
            run(replay_voters, *arguments)


def test_a_replay_without_rows_says_why(tmp_path: Path) -> None:
    items = [{"item": str(n)} for n in range(12)]
    users = [{"user": str(u), "votes": {str(n): n % 2 for n in range(12)}} for u in range(5)]
    for name, rows in (("items", items), ("votes", users)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    text = run(replay_voters, str(tmp_path), "--votes", "5")
    assert "no topic has 2 users with enough votes: a third" in text
    assert "no mean: no topic has 100 users" in text
    assert "no topic has 10 users with 20 votes" in run(portfolio, str(tmp_path))


def test_more_sets_than_there_are_candidates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"1000 sets are asked for, .* ask for fewer"):
        run(portfolio, str(write_voters(tmp_path)), "--size", "1000")


@pytest.mark.slow
def test_the_crash_drill_loses_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "drill.db")
    sizes = ["--processes", "3", "--rows", "40", "--users", "5", "--kills", "1"]
    found = json.loads(run(store_faults, "--database", path, *sizes, "--json"))
    assert all(found["checks"].values())
    assert found["n_kills"] == 1
    assert (found["n_rows"], found["n_withdrawn"], found["n_beliefs"]) == (120, 12, 5)
    with pytest.raises(InvalidInputError, match="without users"):
        run(store_faults, "--database", path)


def test_a_failed_drill_is_a_failed_check() -> None:
    with pytest.raises(CheckFailedError, match="every row is there once"):
        require_passed({"checks": {"every row is there once": False}})
