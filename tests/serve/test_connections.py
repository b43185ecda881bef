"""What one connection may cost: seconds and bytes of headers, unread answers, their number."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest
import uvicorn

from palate.serve.connections import BoundedProtocol
from palate.serve.settings import ServeSettings
from sockets import is_ended

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
BOUNDS = ServeSettings(
    header_seconds=0.5,
    stall_seconds=2.0,
    max_connections=8,
    max_connections_per_address=4,
    max_body_bytes=1024,
)
LARGE = b"x" * 8_000_000
Connect = Callable[..., socket.socket]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while scope["method"] == "POST" and (await receive()).get("more_body"):
        pass
    if scope["path"] == "/block":
        time.sleep(0.3)  # nothing else goes on meanwhile
    body = LARGE if scope["path"] == "/large" else b"hello"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    protocol: Any = partial(BoundedProtocol, BOUNDS)
    config = uvicorn.Config(
        app, port=0, http=protocol, log_config=None, lifespan="off", timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(timeout=30)


@pytest.fixture
def connect(port: int) -> Iterator[Connect]:
    with ExitStack() as stack:

        def make(text: bytes, *, source: str = "127.0.0.1") -> socket.socket:
            one = stack.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.bind((source, 0))
            one.settimeout(20)
            one.connect(("127.0.0.1", port))
            one.sendall(text)
            return one

        yield make


def answered(one: socket.socket) -> bool:
    with suppress(OSError):
        return one.recv(12) == b"HTTP/1.1 200"
    return False


@pytest.mark.parametrize(
    "text", [b"", b"\r\n", HEAD, HEAD + b"X-A:", HEAD + b"\r\n" + HEAD + b"X-A: b"]
)
def test_headers_that_do_not_come_end_the_connection(connect: Connect, text: bytes) -> None:
    assert is_ended(connect(text))


def test_a_drop_of_headers_now_and_then_is_no_way_round(connect: Connect) -> None:
    one, started = connect(HEAD), time.monotonic()
    with suppress(OSError):
        while time.monotonic() < started + 20:
            one.sendall(b"X-A: b\r\n")
            time.sleep(0.05)
    assert time.monotonic() < started + 10


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (HEAD, b"X-A: b\r\n" * 1000),
        (HEAD + b"X-A: ", b"a" * 8000),
        (b"GET /", b"a" * 8000),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"X-A: b\r\n" * 1000,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            b"a" * 8000,
        ),
    ],
)
def test_headers_and_trailers_that_do_not_end_are_cut(
    connect: Connect, start: bytes, more: bytes
) -> None:
    one, n_bytes = connect(start), 0
    with suppress(OSError):
        while n_bytes < 2**24:
            one.sendall(more)
            n_bytes += len(more)
    assert n_bytes < 2**24


@pytest.mark.alone
@pytest.mark.parametrize(
    "text",
    [
        HEAD + b"X-A: b\r\n" * 129,
        HEAD + b"X-A: " + b"a" * 70_000,
        b"no request\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * 2049,
    ],
)
def test_who_goes_beyond_the_bounds_is_told_at_once_and_ended_after_a_while(
    connect: Connect, text: bytes
) -> None:
    started = time.monotonic()
    one = connect(text)
    if not text.startswith(b"POST"):  # which is answered for its first headers
        assert one.recv(12) == b"HTTP/1.1 400"
    assert time.monotonic() - started < 0.4
    assert not is_ended(one, within=0.1)
    assert is_ended(one)


def test_a_hundred_headers_and_a_thousand_chunks_are_none_too_many(connect: Connect) -> None:
    headers = b"".join(b"X-%d: b\r\n" % k for k in range(100))
    assert answered(connect(HEAD + headers + b"\r\n"))
    post = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert answered(connect(post + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n"))


def test_who_does_not_read_is_ended_and_who_reads_gets_all(connect: Connect) -> None:
    stalled = connect(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(6.0)
    n_bytes = 0
    with suppress(ConnectionError):
        while part := stalled.recv(1_000_000):
            n_bytes += len(part)
    assert n_bytes < len(LARGE)  # it was ended before it read again
    reader = connect(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    n_bytes = 0
    while part := reader.recv(1_000_000):
        n_bytes += len(part)
    assert n_bytes > len(LARGE)


@pytest.mark.parametrize("is_busy", [False, *4 * [True]])  # then all come at once
def test_the_connection_that_has_waited_longest_makes_room(connect: Connect, is_busy: bool) -> None:
    connect(HEAD.replace(b"/", b"/block" if is_busy else b"/", 1) + b"\r\n")
    time.sleep(0.05)
    held = [connect(b"", source="127.0.0.2") for _ in range(4)]
    mine = connect(HEAD + b"\r\n")
    newest = connect(HEAD + b"\r\n", source="127.0.0.2")
    assert answered(newest)
    assert answered(mine)
    assert any(is_ended(one, within=0.1) for one in held)


def test_a_kept_connection_answers_again(connect: Connect) -> None:
    one = connect(HEAD + b"\r\n")
    for _ in range(5):
        text = b""
        while not text.endswith(b"hello"):
            part = one.recv(65536)
            assert part
            text += part
        time.sleep(0.2)
        one.sendall(HEAD + b"\r\n")


def test_a_request_before_the_last_one_is_answered_ends_the_connection(connect: Connect) -> None:
    one = connect((HEAD.replace(b"/ ", b"/large ") + b"\r\n") * 50)
    n_bytes = 0
    with suppress(OSError):
        while part := one.recv(65536):
            n_bytes += len(part)
    assert n_bytes < 2 * len(LARGE)
