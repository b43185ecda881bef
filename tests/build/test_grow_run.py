"""`palate portfolio grow`, from the command line to an answer."""

import json
import sys
from pathlib import Path

import pytest

from palate.build.library import stored_settings
from palate.cli import app as program
from palate.core.errors import InvalidInputError
from palate.library.folder import LibraryFolder
from runs import write_portfolio_run


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Grown once by the command itself."""
    folder = tmp_path_factory.mktemp("run")
    run_file = write_portfolio_run(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys,
            "argv",
            ["palate", "portfolio", "grow", str(run_file), "--out", str(folder / "lib")],
        )
        with pytest.raises(SystemExit) as ended:
            program.main()
    assert ended.value.code == 0
    return folder / "lib"


def run(arguments, monkeypatch, capsys):
    """The exit code of the whole program, and what it wrote on both streams."""
    monkeypatch.setattr(sys, "argv", ["palate", *[str(part) for part in arguments]])
    with pytest.raises(SystemExit) as ended:
        program.main()
    written = capsys.readouterr()
    return ended.value.code, written.out, written.err


def test_a_grown_library_is_extended_by_its_own_run_file_without_training_again(
    library: Path, monkeypatch, capsys
):
    settings = ["--set", "portfolio.size=1", "--json"]
    code, out, _ = run(["portfolio", "grow", library, *settings], monkeypatch, capsys)
    found = json.loads(out)
    assert code == 0
    assert len(found["portfolio"]["members"]) == 1
    assert not any(expert["is_trained_now"] for expert in found["experts"])


def test_the_certificate_verifies_and_the_commands_answer_by_it(
    library: Path, monkeypatch, capsys, tmp_path
):
    code, out, _ = run(["portfolio", "verify", library / "portfolio.json"], monkeypatch, capsys)
    assert code == 0
    assert "Every number follows" in out
    wanted = ["--method", "portfolio", "--preference", "short=0.5,long=0.5", "--json"]
    code, out, _ = run(["generate", library, "--prompt", "prompt 1", *wanted], monkeypatch, capsys)
    assert code == 0
    answered = json.loads(out)
    assert "loses at most" in answered["reason"]
    (tmp_path / "rows.jsonl").write_text('{"prompt": "prompt 1", "completion": "a b"}\n')
    code, out, _ = run(["score", library, tmp_path / "rows.jsonl", *wanted], monkeypatch, capsys)
    assert code == 0
    assert json.loads(out)["coefficients"] == answered["coefficients"]


def test_the_tables_can_be_selected_from_by_hand(library: Path, monkeypatch, capsys):
    tables = [library / "payoff.json", "--report-on", library / "payoff-report.json"]
    for option, kind in (("--json", "worst-case"), ("--no-slack", "candidate-relative")):
        code, out, _ = run(
            ["portfolio", "select", *tables, "--size=1", "--confidence=0.9", option, "--json"],
            monkeypatch,
            capsys,
        )
        assert code == 0
        assert json.loads(out)["kind"] == kind  # slacks are in the tables unless left out


def test_what_is_no_library_and_no_run_file_is_exit_code_two(tmp_path, monkeypatch, capsys):
    code, _, err = run(["portfolio", "grow", tmp_path / "nowhere.yaml"], monkeypatch, capsys)
    assert code == 2
    assert "does not exist" in err


def test_a_library_without_a_run_file_cannot_be_grown(tiny_library: Path):
    with pytest.raises(InvalidInputError, match="is missing"):
        stored_settings(LibraryFolder.open(tiny_library))
