"""A real `palate serve` of a tiny library, honest users who time it, and how they fared."""

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.serving.server_process import FREE, ServerProcess, exchange

BOUNDS = (
    "header_seconds=2",
    "body_seconds=2",
    "stall_seconds=2",
    "database_seconds=2",
    "max_connections=400",
    "max_tokens=200",
    "max_connections_per_address=100",
)
FLOOD = """
import os, socket, sys, threading, time
port, seconds, n = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
start, more = (bytes.fromhex(text) for text in sys.argv[4:])
os.nice(10)  # it takes the server's processor as little as another machine would
until, done = time.monotonic() + seconds, []
def flood():
    while time.monotonic() < until:
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.2", 0))
                one.settimeout(max(until - time.monotonic(), 0.01))
                one.connect(("127.0.0.1", port))
                done.append(one.send(start))
                while time.monotonic() < until:
                    done.append(one.send(more))
            except OSError:
                time.sleep(0.01)
threads = [threading.Thread(target=flood) for _ in range(n)]
for one in threads: one.start()
for one in threads: one.join()
print(sum(done))
"""
HONEST, ENEMY = "127.0.0.1", "127.0.0.2"  # one machine, two addresses
N_HONEST = 3
QUIET_SECONDS = 2.0
TALK: dict[str, Any] = {
    "model": "palate",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 3,
}


@dataclass
class Honest:
    """Requests of honest users, each on a connection of its own."""

    port: int
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ratio: float = 0.0  # of the 95th percentile to that without an attack
    n_quiet: int = 0  # requests without an attack, in about the same time

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request, timed."""
        started = time.monotonic()
        connection = http.client.HTTPConnection(HONEST, self.port, timeout=60)
        try:
            status, answer = exchange(connection, method, path, body)
            if status >= 400:
                self.failed.append(f"{method} {path}: {status} {answer}")
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(f"{method} {path}: {error!r}")
            answer = None
        finally:
            connection.close()
            self.seconds.append(time.monotonic() - started)
        return answer

    def percentile(self, share: float) -> float:
        """Seconds within which this share of the requests was answered."""
        return float(np.percentile(self.seconds, share))


@dataclass
class Arena:
    """The server, and the lines that are printed."""

    server: ServerProcess
    database: Path
    lines: list[str] = field(default_factory=list)

    @contextmanager
    def honest_users(self, name: str, *, is_named: bool = True) -> Iterator[Honest]:
        """Honest users ask all the while; afterwards a line says how they fared.

        How fast the server is without an attack is measured right before and after it, since what
        else a machine does changes by the minute.
        """
        honest, quiet = Honest(self.server.port), Honest(self.server.port)
        with self._asking(quiet, is_named=is_named):
            time.sleep(QUIET_SECONDS)
        with self._asking(honest, is_named=is_named):
            yield honest
        with self._asking(quiet, is_named=is_named):
            time.sleep(QUIET_SECONDS)
        honest.n_quiet = len(quiet.seconds)
        honest.ratio = honest.percentile(95) / quiet.percentile(95)
        self.lines.append(
            f"{name:28s} {len(honest.seconds):6d} {len(honest.failed):6d} "
            f"{1000 * honest.percentile(50):8.1f} {1000 * honest.percentile(95):8.1f} "
            f"{1000 * quiet.percentile(95):8.1f} {honest.ratio:7.1f}x"
        )

    @contextmanager
    def _asking(self, honest: Honest, *, is_named: bool) -> Iterator[None]:
        is_over = threading.Event()

        def ask(number: int) -> None:
            while not is_over.is_set():
                user = {"user": f"honest-{number}"} if is_named else {}
                honest.call("POST", "/v1/chat/completions", {**TALK, **user})
                honest.call("GET", "/v1/models")
                time.sleep(0.02)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(N_HONEST)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            for thread in threads:
                thread.join()


@pytest.fixture(scope="session")
def arena(tiny_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    folder = tmp_path_factory.mktemp("arena")
    database = folder / "users.db"
    server = ServerProcess(tiny_library, str(database), (*FREE, *BOUNDS), log=folder / "log")
    server.start()
    arena = Arena(server, database)
    try:
        with arena.honest_users("(warming up)"):
            time.sleep(1)
        yield arena
    finally:
        server.kill()
        print(f"\n{'attack':28s} honest failed   p50 ms   p95 ms quiet p95   ratio")  # noqa: T201
        print("\n".join(arena.lines[1:]))  # noqa: T201


@pytest.fixture(autouse=True)
def _printed(arena: Arena, capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Print an attack's lines although pytest captures what tests print."""
    n_lines = len(arena.lines)
    yield
    with capsys.disabled():
        print("".join(f"\n{line}" for line in arena.lines[n_lines:]), end="")  # noqa: T201


@pytest.fixture
def enemies(arena: Arena) -> Iterator[Callable[..., list[socket.socket]]]:
    """Connections from another address that have sent this much."""
    with ExitStack() as stack:

        def connect(n: int, text: bytes, *, buffer: int | None = None) -> list[socket.socket]:
            opened = []
            for _ in range(n):
                one = stack.enter_context(socket.socket())
                if buffer is not None:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                one.bind((ENEMY, 0))
                one.settimeout(10)
                one.connect((HONEST, arena.server.port))
                with suppress(OSError):
                    one.sendall(text)
                opened.append(one)
            return opened

        yield connect


@pytest.fixture
def flood(arena: Arena) -> Callable[..., int]:
    """Many who send without end and come again when they are ended; how many bytes they sent."""

    def run(n: int, start: bytes, more: bytes, *, seconds: float) -> int:
        words = [sys.executable, "-c", FLOOD, str(arena.server.port), str(seconds), str(n)]
        words += [start.hex(), more.hex()]
        return int(subprocess.run(words, check=True, capture_output=True, timeout=60).stdout)

    return run


def post(path: str, body: dict[str, Any]) -> bytes:
    """A request as it is on the wire."""
    text = json.dumps(body)
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\n\r\n{text}"
    ).encode()
