"""The example that answers AlpacaEval's instructions writes what its judges read."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from palate import Library, SamplingParams


def test_every_instruction_is_answered_once_in_order(
    tiny_library: Path, project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"instruction": "a b", "dataset": "koala", "output": "theirs", "generator": "reference"},
        {"instruction": "c", "input": " d "},
    ]
    source, out = tmp_path / "instructions.json", tmp_path / "outputs.json"
    source.write_text(json.dumps(rows))
    options = ["kind=0.5", "short=0.5", "--method", "soup", "--max-tokens", "4"]
    arguments = [str(tiny_library), str(source), str(out), *options]
    monkeypatch.setattr(sys, "argv", ["alpaca_eval.py", *arguments])
    runpy.run_path(str(project_root / "examples/alpaca_eval.py"), run_name="__main__")
    written = json.loads(out.read_text())
    answers = Library.load(tiny_library).generate(
        ["a b", "c\n\nd"],
        preference={"kind": 0.5, "short": 0.5},
        method="soup",
        sampling=SamplingParams(max_tokens=4),
    )
    assert [row.pop("output") for row in written] == [one.text.strip() for one in answers]
    assert written == [
        {"instruction": "a b", "generator": "palate", "dataset": "koala"},
        {"instruction": "c", "generator": "palate", "input": " d "},
    ]
