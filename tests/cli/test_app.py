"""The program: exit codes and one sentence on standard error."""

import subprocess
import sys
from pathlib import Path


def palate(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "palate"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_help_and_version_answer() -> None:
    assert palate("--version").stdout.startswith("palate 0.")
    done = palate("--help")
    assert done.returncode == 0
    assert "portfolio" in done.stdout


def test_an_unknown_command_is_bad_input() -> None:
    assert palate("nonsense").returncode == 2


def test_an_unknown_setting_is_one_sentence_and_exit_code_two() -> None:
    done = palate("evaluate", "--set", "n_poeple=3")
    assert done.returncode == 2
    assert done.stderr.startswith("palate: The key 'n_poeple'")
    assert "Traceback" not in done.stderr
