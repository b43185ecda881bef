"""`palate bridge`: what other evaluations read and write."""

import json
import sys

import pytest
from typer.testing import CliRunner

from palate.cli.app import app, main

RUN = CliRunner()


def annotations(tmp_path, preferences=(2.0, 1.0, 2.0, 1.5)):
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
        for k, preference in enumerate(preferences)
    ]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(rows))
    return path


def test_verdicts_are_printed_with_their_intervals(tmp_path):
    path = annotations(tmp_path)
    result = RUN.invoke(app, ["bridge", "verdicts", str(path)], catch_exceptions=False)
    lines = result.stdout.splitlines()
    assert {"verdicts: n wins: 2", "verdicts: n ties: 1", "verdicts: n losses: 1"} <= set(lines)
    assert any(line.startswith("win rate: 0.625 [") for line in lines)
    result = RUN.invoke(app, ["bridge", "verdicts", str(path), "--json"], catch_exceptions=False)
    content = json.loads(result.stdout)
    assert content["win_rate"]["estimate"] == 0.625
    assert content["verdicts"]["n_wins"] == 2


def test_instructions_are_answered_into_a_file_for_alpaca_eval(tmp_path, tiny_library):
    asked, out = tmp_path / "asked.json", tmp_path / "outputs.json"
    asked.write_text(json.dumps([{"instruction": "a b"}, {"instruction": "c"}]))
    words = ["bridge", "alpaca", str(tiny_library), str(asked), "--out", str(out)]
    more = ["--preference", "kind=0.5,short=0.5", "--max-tokens", "4", "--generator", "me"]
    result = RUN.invoke(app, [*words, *more, "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["n_answers"] == 2
    rows = json.loads(out.read_text())
    assert [(row["instruction"], row["generator"]) for row in rows] == [("a b", "me"), ("c", "me")]


@pytest.mark.parametrize("words", [["bridge", "verdicts", "nothing.json"]])
def test_bad_input_is_one_sentence_and_exit_code_2(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["palate", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("palate: The annotations file 'nothing.json'")


def test_without_the_harness_the_extra_is_named(tiny_library, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "palate.evaluate.harness_model", raising=False)
    words = ["bridge", "lm-eval", str(tiny_library), "--tasks", "x", "--preference", "kind=1"]
    monkeypatch.setattr(sys, "argv", ["palate", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "palate[harness]" in capsys.readouterr().err
