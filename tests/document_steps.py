"""Steps of documents: a command of palate's, blocks of Python, a server."""

import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import urlopen

from typer.testing import CliRunner

from documents import Block
from palate.cli.app import app

PORT = "8000"  # of the documents; a free one takes its place
WAIT_SECONDS = 120.0


def run_command(line: str) -> None:
    """A command of palate's in this process; what it prints is its own matter."""
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert done.exit_code == 0, f"{line}: {done.output} {done.exception!r}"


def run_python(
    parts: list[Block],
    *,
    name: str,
    port: str = PORT,
    namespace: dict[str, object] | None = None,
) -> None:
    """The blocks one after another, in one namespace, by default one of their own."""
    namespace = {} if namespace is None else namespace
    namespace["__name__"] = name
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
