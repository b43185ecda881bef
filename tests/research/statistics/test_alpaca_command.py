"""`python -m research.statistics.alpaca` prints win rates, and refuses what is not there."""

import json
from pathlib import Path

from typer.testing import CliRunner

from research.command_line import program
from research.statistics.alpaca import main

RUN = CliRunner()


def annotations(tmp_path: Path) -> Path:
    rows = [
        {
            "instruction": f"ask {k}",
            "output_1": "theirs",
            "generator_1": "reference",
            "output_2": "ours",
            "generator_2": "palate",
            "annotator": "judge",
            "preference": preference,
        }
        for k, preference in enumerate((2.0, 1.0, 2.0, 1.5))
    ]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows))
    return path


def test_verdicts_are_printed_with_their_intervals(tmp_path: Path) -> None:
    path = str(annotations(tmp_path))
    lines = RUN.invoke(program(main), [path], catch_exceptions=False).stdout.splitlines()
    assert {"verdicts: n wins: 2", "verdicts: n ties: 1", "verdicts: n losses: 1"} <= set(lines)
    assert any(line.startswith("win rate: 0.625 [") for line in lines)
    result = RUN.invoke(program(main), [path, "--json"], catch_exceptions=False)
    content = json.loads(result.stdout)
    assert content["win_rate"]["estimate"] == 0.625
    assert content["verdicts"]["n_wins"] == 2
