"""`palate build`: exit codes and what is printed."""

import json
import sys

import pytest
import typer
from typer.testing import CliRunner

from palate.cli import app as program
from palate.cli.build import build


def run(arguments, monkeypatch, capsys):
    """The exit code of the whole program, and what it wrote on both streams."""
    monkeypatch.setattr(sys, "argv", ["palate", *arguments])
    with pytest.raises(SystemExit) as ended:
        program.main()
    written = capsys.readouterr()
    return ended.value.code, written.out, written.err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "model_name_or_path: b\nprompts: p\ncolour: red\n"
            "objectives: [{name: a, reward: {folder: f}}]\n",
            "'colour'",
        ),
        ("model_name_or_path: [\n", "not valid YAML"),
        ("model_name_or_path: ./nowhere\nprompts: p.jsonl\n", "'objectives'"),
    ],
)
def test_a_bad_run_file_is_one_sentence_and_exit_code_two(
    tmp_path, monkeypatch, capsys, content, sentence
):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    code, out, err = run(["build", str(path)], monkeypatch, capsys)
    assert code == 2
    assert out == ""
    assert sentence in err
    assert err.startswith("palate: ")


def test_a_missing_run_file_is_exit_code_two(tmp_path, monkeypatch, capsys):
    code, _, err = run(["build", str(tmp_path / "none.yaml")], monkeypatch, capsys)
    assert code == 2
    assert "does not exist" in err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--expert", "a", "--out", "x", "--set", "seed=1"], "--set does nothing with --expert"),
        (["--gather", "copy", "--set", "seed=1"], "--set does nothing with --gather"),
        (["--gather", "copy", "--out", "x"], "--out does nothing with --gather"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    tmp_path, monkeypatch, capsys, options, sentence
):
    code, _, err = run(["build", str(tmp_path), *options], monkeypatch, capsys)
    assert code == 2
    assert sentence in err


def test_what_is_gathered_is_printed_as_json_too(tmp_path, monkeypatch, capsys):
    found = [("kind", tmp_path / "copy")]
    monkeypatch.setattr("palate.build.library.gather_experts", lambda *_: found)
    words = ["build", str(tmp_path), "--gather", "copy"]
    code, out, _ = run([*words, "--json"], monkeypatch, capsys)
    assert code == 0
    assert json.loads(out) == [{"expert": "kind", "from": str(tmp_path / "copy")}]
    _, out, _ = run(words, monkeypatch, capsys)
    assert str(tmp_path / "copy") in out


def test_the_outcome_is_printed_as_one_json_object(tmp_path, monkeypatch):
    class Outcome:
        def to_json(self):
            return {"library": "lib", "experts": [], "seconds": 1.0}

    asked = []

    def fake(settings, *, out, only):
        asked.append((settings.seed, out.name, only))
        return Outcome()

    monkeypatch.setattr("palate.build.library.build_library", fake)
    path = tmp_path / "small.yaml"
    path.write_text(
        "model_name_or_path: b\nprompts: p\n"
        "objectives: [{name: a, reward: {rule: {kind: words, words: [x]}}}]\n"
    )
    app = typer.Typer()
    app.command()(build)
    found = CliRunner().invoke(app, [str(path), "--json", "--set", "seed=7"])
    assert found.exit_code == 0
    assert json.loads(found.stdout)["library"] == "lib"
    for options in (["--prepare"], ["--only", "a"]):
        assert CliRunner().invoke(app, [str(path), *options]).exit_code != 2
    right = {"estimate": 0.75, "low": 0.5, "high": 0.9, "n": 16}
    told = {"accuracy": right, "by_length": 0.75, "is_above_length": False}
    content = {"library": "lib", "rewards": {"a": told}, "experts": [], "portfolio": None}
    monkeypatch.setattr(Outcome, "to_json", lambda _self: {**content, "seconds": 1.0})
    said = " ".join(CliRunner().invoke(app, [str(path)]).stdout.split())
    assert all(column in said for column in ("accuracy", "by length", "is above length"))
    assert "a 0.75 [0.5, 0.9] 0.75 no" in said.replace("│ ", "")
    assert "warning: the reward a is no better than length alone" in said
    asked.pop()
    assert asked == [(7, "small", None), (0, "small", []), (0, "small", ["a"])]
