"""What `palate generate` and `palate score` print."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from palate.cli import app as program
from palate.core.types import Completion
from palate.library import generate
from palate.library.generate import Output

ODD = "A cat :cat: says [bold]meow[/bold] " + "and goes on and on " * 20 + "\n  twice."


@pytest.fixture
def palate(monkeypatch, capsys):
    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["palate", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            program.main()
        assert not ended.value.code
        return capsys.readouterr().out

    return run


def test_an_answer_is_printed_as_it_is(palate, monkeypatch, tiny_library: Path) -> None:
    def fixed(_library, decisions, **_options):
        return [Output(ODD, decision, Completion("Why?", ODD)) for decision in decisions]

    monkeypatch.setattr(generate, "generate_all", fixed)
    printed = palate("generate", tiny_library, "--prompt", "Why?", "-p", "kind=1")
    assert printed.endswith(ODD + "\n")


def test_the_base_is_said_to_use_no_expert(palate, tiny_library: Path) -> None:
    words = ["generate", tiny_library, "--prompt", "Why?", "--method", "base", "--max-tokens", 2]
    assert palate(*words).startswith("base: no expert. One pass of the base")


def test_no_answers_are_refused(monkeypatch, capsys, tiny_library: Path) -> None:
    words = ["palate", "generate", str(tiny_library), "--prompt", "Why?", "-n", "0"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    assert "ask for at least one" in capsys.readouterr().err


def test_scores_say_how_the_plan_came_about(palate, tiny_library: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Why?", "completion": "Because."}\n')
    words = ["score", tiny_library, rows, "-p", "kind=1", "--method", "output-soup"]
    sentence = "The anchors' combination equal to the preference, at strength 1."
    assert sentence in " ".join(palate(*words).split())
    assert json.loads(palate(*words, "--json"))["reason"] == sentence


def test_a_bare_base_is_served_by_its_hub_id_from_the_local_cache(
    palate, monkeypatch, capsys, tiny_library: Path, tmp_path: Path
) -> None:
    repository, commit = tmp_path / "models--some--base", "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(tiny_library.parent / "base", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    words = ["--prompt", "Why?", "--max-tokens", 2, "--json"]
    assert json.loads(palate("generate", "some/base", *words))["method"] == "base"
    monkeypatch.setattr(sys, "argv", ["palate", "generate", "some/other", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "run 'hf download some/other'" in said
    assert len(said.strip().splitlines()) == 1
