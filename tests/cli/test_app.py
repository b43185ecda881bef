"""The program: exit codes and one sentence on standard error."""

import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from palate.cli.app import LazyGroup, app


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
    files = ("library", "--prompts", "prompts.jsonl", "--out", "payoff.json")
    done = palate("portfolio", "measure", *files, "--set", "n_poeple=3")
    assert done.returncode == 2
    assert done.stderr.startswith("palate: The key 'n_poeple'")
    assert "Traceback" not in done.stderr


def test_the_help_of_the_program_has_each_commands_own_line() -> None:
    program = get_command(app)
    assert isinstance(program, LazyGroup)
    for name in program.list_commands(None):
        command = program.get_command(None, name)
        assert command.name == name
        assert command.help, name
    assert program.get_command(None, "nonsense") is None


def test_help_imports_no_command() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from palate.cli.app import COMMANDS, app\n"
        "done = CliRunner().invoke(app, ['--help'])\n"
        "assert done.exit_code == 0 and all(name in done.output for name in COMMANDS)\n"
        "imported = {name for name in sys.modules if name.startswith('palate.')}\n"
        "assert imported <= {'palate.cli', 'palate.cli.app', 'palate.cli.exits', 'palate.core',\n"
        "    'palate.core.errors', 'palate.core.extras'}, imported\n"
        "assert 'numpy' not in sys.modules and 'pydantic' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
