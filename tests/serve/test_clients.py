"""Clients that others wrote, each in a process of its own, against a server that listens.

They lie in an environment of their own, which `.ci/clients.sh` makes; without it they are skipped.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from palate.library.library import Library
from palate.serve.state import Served

CLIENTS = {  # by how the documents name them
    "openai": "openai",
    "openai, newest": "openai",
    "litellm": "litellm",
    "langchain-openai": "langchain-openai",
    "pydantic-ai": "pydantic-ai",
    "llm": "llm",
    "instructor": "instructor",
}
COLUMNS = ("chat", "stream", "json", "tools")
OWN = "openai"  # runs in the main environment


@pytest.fixture(scope="module")
def address(
    make_served: Callable[..., Served], listen: Callable[..., Any], tooled: Library
) -> Iterator[str]:
    served = make_served(library=tooled, max_prompt_tokens=4000, max_tokens=400)
    place, stop = listen(served)
    yield f"{place}/v1"
    stop()


@pytest.fixture(scope="module")
def runs(
    project_root: Path, address: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Every client that is installed, all at once: most of their time is their imports."""
    others = project_root / "build/clients"
    script = project_root / "tests/serve/client_calls.py"
    started: dict[str, subprocess.Popen[str]] = {}
    for client, name in CLIENTS.items():
        python = Path(sys.executable) if client == OWN else others / "bin/python"
        settings = {"LLM_USER_PATH": str(tmp_path_factory.mktemp("llm"))}
        settings["LITELLM_LOCAL_MODEL_COST_MAP"] = "1"  # nothing is fetched
        if client.endswith("newest"):
            settings["PYTHONPATH"] = str(others / "newest")
        if python.exists():
            started[client] = subprocess.Popen(
                [python, script, name, address],
                env={**os.environ, **settings},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


def is_right(what: str, result: Any) -> bool:
    """Whether this is a text, or a person by the schema."""
    if what in ("json", "tools"):
        is_person = isinstance(result, dict) and set(result) == {"name", "age"}
        return is_person and len(result["name"]) <= 4 and 0 <= result["age"] <= 99
    return isinstance(result, str) and 0 < len(result) < 40 and "Error" not in result


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_chats_streams_and_gets_json_and_calls(
    project_root: Path, runs: dict[str, subprocess.Popen[str]], client: str
) -> None:
    if client not in runs:
        pytest.skip("the clients are not installed; make them with .ci/clients.sh")
    output, log = runs[client].communicate(timeout=180)
    assert runs[client].returncode == 0, log[-2000:]
    found = json.loads(output.strip().splitlines()[-1])
    marks = ["yes" if is_right(what, found[what]) else "no" for what in COLUMNS if what in found]
    marks += ["-"] * (len(COLUMNS) - len(marks))
    row = f"| {client} | {found['version']} | {' | '.join(marks)} |"
    assert row in (project_root / "docs/serving.md").read_text().splitlines(), f"{row}\n{found}"
