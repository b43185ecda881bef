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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("methods: [base, magic]", "magic"),
        ("ways: [base]", "now called 'methods'"),
        ("strength: 2", "the library's own"),
        ("colour: red", "colour"),
        ("users: [{name: a, preference: {x: 0.4}}]", "0.4"),
    ],
)
def test_a_suite_that_cannot_run_is_refused_before_anything_is_built(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    assert words in refused("evaluate", str(path), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_missing_suite_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused("evaluate", str(tmp_path / "none.yaml"))
