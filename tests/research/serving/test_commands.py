"""Plan and fault injection print, and refuse with a sentence."""

import json

import pytest
from typer.testing import CliRunner

from palate.core.errors import InvalidInputError
from palate.core.files import dump_json
from research.command_line import program
from research.serving import plan, replica_faults


def run(*words: str) -> str:
    found = CliRunner().invoke(program(plan.main), list(words), env={"COLUMNS": "200"})
    if isinstance(found.exception, Exception):
        raise found.exception
    return found.stdout


def test_the_plan_is_a_table_with_what_breaks_and_where_constants_are_from() -> None:
    shown = run("--model", "llama-3.2-1b", "--set", "users=[1000, 1000000]")
    assert "llama-3.2-1b on h200" in shown
    assert "│ 1M " in shown
    assert "one is not enough of" in shown
    assert "reports/preferences.md" in shown
    found = json.loads(run("--model", "llama-3.2-1b", "--json"))
    assert [row["users"] for row in found["rows"]][-1] == 10**9
    assert dump_json(found)


def test_a_plan_of_a_run_file_and_of_settings_at_once_is_refused(tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("model: llama-3.2-1b\n")
    assert "llama-3.2-1b" in run("--config", str(path))
    with pytest.raises(InvalidInputError, match="not both"):
        run("--config", str(path), "--run", str(path))
    with pytest.raises(InvalidInputError, match="'gpt-9' is not listed"):
        run("--model", "gpt-9")


def test_the_drills_outcome_is_shown_and_a_failed_check_leaves_with_an_error(monkeypatch) -> None:
    row = {"n": 9, "n_failed": 1, "low": 0.0, "high": 0.4, "error_rate": 0.11, "p95_seconds": 0.2}
    found = {
        "phases": {"one away": row},
        "n_acknowledged": 7,
        "n_kept": 6,
        "n_lost": 1,
        "n_twice": 0,
        "n_sent_again_and_found": 2,
        "checks": {"every acknowledged judgement is kept": False},
    }
    monkeypatch.setattr("research.serving.replicas_under_load.drill_replicas", lambda *_: found)
    shown = CliRunner().invoke(
        program(replica_faults.main), ["library", "--database", "postgresql://x"]
    )
    assert "7 judgements acknowledged, 6 kept, 1 lost" in shown.stdout
    assert "every acknowledged judgement is kept does not hold" in str(shown.exception)
