"""What `palate answer` and `palate score` print."""

import json
import sys
from pathlib import Path

import pytest

from palate.cli import app as program
from palate.core.types import Completion
from palate.recipes import answer as recipe

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
    def fixed(opened, prompt, asked, **_options):
        chosen = recipe.choose(opened.library.manifest, asked)
        return recipe.Answered(chosen, [Completion(prompt, ODD)])

    monkeypatch.setattr(recipe, "answer", fixed)
    said = palate("answer", tiny_library, "--prompt", "Why?", "-p", "kind=1")
    assert said.endswith(ODD + "\n")


def test_the_base_is_said_to_use_no_expert(palate, tiny_library: Path) -> None:
    words = ["answer", tiny_library, "--prompt", "Why?", "--way", "base", "--max-tokens", 2]
    assert palate(*words).startswith("base: no expert. One pass of the base")


def test_scores_say_how_the_plan_came_about(palate, tiny_library: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Why?", "completion": "Because."}\n')
    words = ["score", tiny_library, rows, "-p", "kind=1", "--way", "mixture"]
    assert "no controller was used" in palate(*words)
    assert "no controller was used" in json.loads(palate(*words, "--json"))["reason"]
