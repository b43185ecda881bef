"""The command `python -m research.statistics.check`."""

import json

import pytest
from typer.testing import CliRunner

from research.command_line import program
from research.statistics import cells as statistics_study
from research.statistics import check
from research.statistics.cells import Cell
from research.statistics.draws import Shape


def test_a_check_prints_rows_and_writes_both_files(tmp_path, monkeypatch: pytest.MonkeyPatch):
    cells = [Cell("one kind", Shape(6, 0, 3), "user")]
    monkeypatch.setattr(statistics_study, "all_cells", lambda: cells)
    done = CliRunner().invoke(
        program(check.main), ["--repeats", "20", "--out", str(tmp_path), "--json"]
    )
    assert done.exit_code == 0
    (row,) = json.loads(done.stdout)
    assert (row["n_repeats"], row["n_users"], row["what"]) == (20, 6, "one kind")
    assert 0 <= row["significant"]["low"] <= row["significant"]["share"] <= 1
    assert json.loads((tmp_path / "statistics.json").read_text()) == [row]
    assert "--repeats 20 --seed 0" in (tmp_path / "statistics.md").read_text()
