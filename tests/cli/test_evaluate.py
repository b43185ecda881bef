"""The command `evaluate`: what it refuses, in a sentence."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from palate.cli.app import app
from palate.core.errors import PalateError

runner = CliRunner()


def refused(*arguments: str) -> str:
    """The sentence with which a command refuses."""
    done = runner.invoke(app, list(arguments))
    assert isinstance(done.exception, PalateError)
    return str(done.exception)


SUITE = """
users: [{name: a, preference: {kind: 1.0}}]
prompts: ["Why?"]
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("methods: [base, magic]", "magic"),
        ("methods: [soup]", "must hold 'base'"),
        ("seeds: [1, 1]", "1 occurs twice in 'seeds'"),
        ("prompts: []", "prompts"),
        ("colour: red", "colour"),
        ("users: [{name: a, preference: {kind: 0.4}}]", "0.4"),
    ],
)
def test_a_suite_that_cannot_run_is_refused_before_anything_is_built(
    tiny_library: Path, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "suite.yaml"
    own = [line for line in SUITE.splitlines() if not line.startswith(text.split(":")[0])]
    path.write_text("\n".join([*own, text]))
    found = refused("evaluate", str(tiny_library), str(path), "--out", str(tmp_path / "out"))
    assert words in found
    assert not (tmp_path / "out").exists()


def test_a_missing_suite_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused("evaluate", "library", str(tmp_path / "none.yaml"))
