"""Studies and benchmarks as modules: help, exit codes, one sentence on standard error."""

import subprocess
import sys
from pathlib import Path

import pytest

from palate.core.errors import InvalidInputError
from research.command_line import whole_numbers


@pytest.fixture
def study(project_root: Path):
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=project_root,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def test_help_names_the_module_and_its_options(study) -> None:
    done = study("research.portfolio.study", "--help")
    assert done.returncode == 0
    assert "python -m research.portfolio.study" in done.stdout
    assert "--first-seed" in done.stdout


def test_an_unknown_setting_is_one_sentence_and_exit_code_two(study) -> None:
    done = study("benchmarks.certificate", "--set", "n_poeple=3")
    assert done.returncode == 2
    assert done.stderr.startswith("palate: The key 'n_poeple'")
    assert "Traceback" not in done.stderr


def test_whole_numbers_are_read() -> None:
    assert whole_numbers("0, 1,-2", what="seeds") == (0, 1, -2)


@pytest.mark.parametrize("text", ["", "a", "1.5", "1,,2"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="seeds"):
        whole_numbers(text, what="seeds")
