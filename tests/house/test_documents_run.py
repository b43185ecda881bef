"""The README and the page on Python, run as they stand: commands, server, Python blocks."""

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from documents import Block, blocks, write_story
from palate.cli.app import app

PORT = "8000"  # of the documents; a free one takes its place
WAIT_SECONDS = 120.0


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents take for granted, and the library that they build."""
    folder = tmp_path_factory.mktemp("documents")
    write_story(folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        run_command("palate build run.yaml --out library")
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def in_story(story: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(story)
    for path in [*story.glob("users.db*")]:
        path.unlink()
    return story


def run_command(line: str) -> None:
    """A command of palate's in this process; what it prints is its own matter."""
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert done.exit_code == 0, f"{line}: {done.output} {done.exception!r}"


def run_python(parts: list[Block], *, name: str, port: str = PORT) -> None:
    """The blocks one after another, in one namespace of their own."""
    namespace: dict[str, object] = {"__name__": name}
    for place, block in enumerate(parts, start=1):
        code = compile(block.text.replace(f":{PORT}", f":{port}"), f"{name}, block {place}", "exec")
        exec(code, namespace)  # noqa: S102  the documents are ours


@contextmanager
def serving(line: str) -> Iterator[str]:
    """The server that a document starts, on a free port; yields the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [*shlex.split(line)[1:], "--port", port]
    program = "import sys; from palate.cli.app import main; sys.argv[0] = 'palate'; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server)
        yield port
    finally:
        server.terminate()
        server.communicate(timeout=WAIT_SECONDS)


def _wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, (server.stderr and server.stderr.read().decode())[-2000:]
        try:
            with urlopen(url, timeout=1):  # noqa: S310  of this machine
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"{url} did not answer in {WAIT_SECONDS} s")


def test_the_commands_of_the_readme_run_as_they_stand(in_story: Path, project_root: Path) -> None:
    lines = [line for one in blocks(project_root / "README.md", "bash") for line in one.commands]
    ours = [line for line in lines if line.startswith("palate ")]
    assert any(line.startswith("palate build run.yaml --out library") for line in ours)
    for line in ours:
        if not line.startswith("palate serve"):
            run_command(line)
    assert (in_story / "merged/adapter_model.safetensors").is_file()


def test_the_python_of_the_readme_runs_as_it_stands(in_story: Path, project_root: Path) -> None:
    parts = blocks(project_root / "README.md", "python")
    local = [part for part in parts if "openai" not in part.text]
    assert local
    run_python(local, name="README.md")
    assert (in_story / "adapter/adapter_model.safetensors").is_file()


def test_the_server_of_the_readme_answers_its_client(in_story: Path, project_root: Path) -> None:
    lines = [line for one in blocks(project_root / "README.md", "bash") for line in one.commands]
    (line,) = [line for line in lines if line.startswith("palate serve")]
    parts = blocks(project_root / "README.md", "python")
    remote = [part for part in parts if "openai" in part.text]
    assert remote
    with serving(line) as port:
        run_python(remote, name="README.md", port=port)


def test_the_page_on_python_runs_as_it_stands(in_story: Path, project_root: Path) -> None:
    adapter = in_story / "adapter"
    if adapter.exists():  # the README's
        adapter.rename(in_story / "adapter-of-readme")
    run_python(blocks(project_root / "docs/python.md", "python"), name="docs/python.md")
    assert (in_story / "compared/results.jsonl").is_file()
    assert (adapter / "adapter_model.safetensors").is_file()
