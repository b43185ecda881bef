"""A server as a process of its own: measured, killed, started again; and a plain client."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palate.core.errors import CheckFailedError, ProviderError

START_SECONDS = 180.0
RETRY_SECONDS = 0.25
FREE = ("requests_per_minute=1000000000", "burst=100000000")  # no limit of the rate
AGAIN = frozenset({429, 503})  # nothing was kept; the request can be sent again


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(eq=False)
class ServerProcess:
    """A server on a free port of this machine.

    Attributes:
        library: What it serves.
        database: URL or path.
        settings: `key=value` each.
        log: Where its log goes; not kept where absent.
        port: Where it listens; the same after a restart.
        words: Of the command that serves, with options of its own.
    """

    library: Path
    database: str
    settings: Sequence[str] = ()
    log: Path | None = None
    port: int = field(default_factory=_free_port)
    words: Sequence[str] = ("serve",)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it is ready.

        Raises:
            CheckFailedError: it ended, or was not ready in time.
        """
        command = [sys.executable, "-c", "from palate.cli.app import main; main()", *self.words]
        command += [str(self.library), "--database", self.database, "--port", str(self.port)]
        for setting in self.settings:
            command += ["--set", setting]
        with self.log.open("a+b") if self.log else tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log)  # noqa: S603  our own
            deadline = time.monotonic() + START_SECONDS
            while time.monotonic() < deadline:
                if self._process.poll() is not None:
                    log.seek(0)
                    last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
                    raise CheckFailedError(
                        f"The server ended with exit code {self._process.returncode}: {last}"
                    )
                with suppress(OSError):
                    if self.call("GET", "/ready")[0] == 200:
                        return
                time.sleep(RETRY_SECONDS)
        raise CheckFailedError(f"The server was not ready within {START_SECONDS:.0f} seconds.")

    @property
    def process_id(self) -> int:
        """Of the running server."""
        assert self._process is not None  # noqa: S101  started by the caller
        return self._process.pid

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to end (SIGTERM) and wait; gives the exit code."""
        return self._end(signal.SIGTERM)

    def ask_to_stop(self) -> None:
        """Send SIGTERM and do not wait."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def memory_bytes(self) -> int:
        """Resident memory now."""
        assert self._process is not None  # noqa: S101  started by the caller
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = [row for row in status.splitlines() if row.startswith("VmRSS:")]
        return 1024 * int(line.split()[1])

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of one request.

        Raises:
            OSError: the server cannot be reached, or went away.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            return exchange(connection, method, path, body)
        finally:
            connection.close()

    def must(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """JSON of a request that is sent again while the server or its database is away.

        Raises:
            ProviderError: the server refused it, or stayed away.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            status, found = 503, None
            with suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
                status, found = self.call(method, path, body)
            if status < 300:
                return found
            if status not in AGAIN or time.monotonic() > deadline:
                raise ProviderError(f"{method} {path} was answered with {status}: {found}.")
            time.sleep(RETRY_SECONDS)

    def stream(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Chunks of a streamed chat completion as they come.

        Raises:
            ProviderError: it was refused.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            if response.status != 200:
                raise ProviderError(f"A stream was refused with {response.status}.")
            for line in response:
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])
        finally:
            connection.close()

    def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(how)
        code = self._process.wait(timeout=120)
        self._process = None
        return code


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
) -> tuple[int, Any]:
    """Status and JSON of one request on an open connection."""
    content = None if body is None else json.dumps(body)
    headers = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, path, content, headers)
    response = connection.getresponse()
    text = response.read()
    kind = response.headers.get("content-type", "")
    return response.status, json.loads(text) if kind.startswith("application/json") else text
