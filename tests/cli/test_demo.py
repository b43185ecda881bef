"""What `palate demo` prints."""

import json
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from palate.cli import app as program


def run(monkeypatch, *words: object) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["palate", "demo", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        program.main()
    return ended.value.code


def test_the_json_is_the_report(monkeypatch, capsys, tiny_library: Path, tmp_path: Path) -> None:
    words = [tiny_library, "--out", tmp_path, "--no-train", "--json", "--prompt", "Why?"]
    assert not run(monkeypatch, *words)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "report.json").read_text())
    assert printed["prompt"] == "Why?"


def test_a_terminal_of_eighty_columns_cuts_nothing_off(
    monkeypatch, capsys, tiny_full_library: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert not run(monkeypatch, tiny_full_library, "--out", tmp_path, "--no-train")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= 80
    text = "\n".join(lines)
    for words in (
        "the base",
        "What users gain",
        "kind, short.",
        "8 verdicts",
        "Who wrote",
        "seed 0",
    ):
        assert words in text
    assert "Left out. A further expert: --no-train" in text


@pytest.mark.parametrize("rule", ["{kind: words", "{kind: magic}", "you", "2024-02-30"])
def test_a_rule_that_is_none_is_refused(monkeypatch, capsys, tmp_path: Path, rule: str) -> None:
    assert run(monkeypatch, tmp_path, "--out", tmp_path, "--rule", rule) == 2
    assert "rule" in capsys.readouterr().err
