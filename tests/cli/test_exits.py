import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from palate.core.extras import EXTRA_OF, missing_extra

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "prometheus_client": "prometheus-client",
    "lm_eval": "lm-eval",
    "opentelemetry": "opentelemetry-api",
}


def test_a_module_that_an_extra_brings_is_named_with_its_extra() -> None:
    found = missing_extra(ModuleNotFoundError("no", name="sklearn.linear_model"))
    assert found is not None
    assert "palate[train]" in str(found)
    assert missing_extra(ModuleNotFoundError("no", name="palate.nothing")) is None


@pytest.mark.parametrize("module", sorted(EXTRA_OF))
def test_each_extra_declares_what_it_is_said_to_bring(module: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][EXTRA_OF[module]]
    name = DISTRIBUTIONS.get(module, module)
    assert any(line.startswith((f"{name}>", f"{name}[")) for line in lines)


def test_a_command_without_its_extra_is_one_sentence_and_exit_code_two(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from palate.cli.app import main\n"
        f"sys.argv = ['palate', 'score', {str(tmp_path)!r}, 'x.jsonl']\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert "install palate[train]" in done.stderr
    assert "Traceback" not in done.stderr
