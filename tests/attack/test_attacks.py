"""Attacks on a real server: honest users are answered all the while, about as fast as else.

`PALATE_ATTACK_SECONDS` makes the kills go on for longer, such as 600.
"""

import itertools
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest

from attack.conftest import TALK, Arena, Honest, post
from research.serving.server_process import ServerProcess
from sockets import is_ended

pytestmark = [pytest.mark.slow, pytest.mark.alone]

Enemies = Callable[..., list[socket.socket]]
Flood = Callable[..., int]
ATTACK_SECONDS = 4.0  # longer than the bounds of the server here
KILL_SECONDS = float(os.environ.get("PALATE_ATTACK_SECONDS", "10"))
MAX_RATIO = 3.0  # of the 95th percentile, to that without an attack
MIN_HONEST = 40  # requests on which a percentile rests, unless the machine is too busy for them
MAX_GROWTH_BYTES = 64 * 2**20
CHROMIUM = Path(os.environ.get("PALATE_CHROMIUM", "/usr/bin/chromium"))


def require_held(honest: Honest) -> None:
    assert honest.failed == []
    assert len(honest.seconds) >= min(MIN_HONEST, honest.n_quiet // 3)
    assert honest.ratio <= MAX_RATIO


def test_bodies_that_never_come(arena: Arena, enemies: Enemies) -> None:
    text = post("/v1/chat/completions", TALK)[:-20]
    with arena.honest_users("slow bodies, 300") as honest:
        held = enemies(300, text)
        time.sleep(ATTACK_SECONDS)
    require_held(honest)
    assert all(is_ended(one, within=0.5) for one in held)


CHUNKED = (
    post("/v1/chat/completions", TALK).partition(b"Content-Length")[0]
    + b"Transfer-Encoding: chunked\r\n\r\n"
)
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("name", "start", "more"),
    [
        ("endless headers, 20", HEAD, b"X-A: b\r\n" * 1000),
        ("one endless header, 20", HEAD + b"X-A: ", b"a" * 8000),
        ("endless trailers, 20", CHUNKED + b"0\r\n", b"X-A: b\r\n" * 1000),
        ("tiny chunks, 20", CHUNKED, b"1\r\na\r\n" * 1300),
        ("requests without pause, 20", HEAD + b"\r\n", (HEAD + b"\r\n") * 250),
    ],
)
def test_floods_that_come_again_and_again(
    arena: Arena, flood: Flood, name: str, start: bytes, more: bytes
) -> None:
    before = arena.server.memory_bytes()
    with arena.honest_users(name) as honest:
        assert flood(20, start, more, seconds=ATTACK_SECONDS) > 2**20
    require_held(honest)
    assert arena.server.memory_bytes() - before < MAX_GROWTH_BYTES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("half headers, 300", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A:"),
        ("one endless header, 300", b"GET / HTTP/1.1\r\nX-A: " + b"a" * 60_000),
        ("empty lines, 300", b"\r\n"),
        ("nothing at all, 300", b""),
    ],
)
def test_requests_that_never_begin(arena: Arena, enemies: Enemies, name: str, text: bytes) -> None:
    with arena.honest_users(name) as honest:
        held = enemies(300, text)
        time.sleep(ATTACK_SECONDS)
    require_held(honest)
    assert all(is_ended(one, within=0.5) for one in held)


def test_clients_that_do_not_read(arena: Arena, enemies: Enemies) -> None:
    text = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
    with arena.honest_users("stalled readers, 60") as honest:
        held = enemies(60, text, buffer=4096)
        time.sleep(ATTACK_SECONDS + 2)
    require_held(honest)
    assert all(is_ended(one, within=0.5) for one in held)


def test_a_database_that_somebody_locks(arena: Arena) -> None:
    with (
        closing(sqlite3.connect(arena.database, isolation_level=None)) as other,
        arena.honest_users("database locked", is_named=False) as honest,
    ):
        other.execute("BEGIN IMMEDIATE")
        until = time.monotonic() + ATTACK_SECONDS
        while time.monotonic() < until:
            started = time.monotonic()
            assert arena.server.call("GET", "/ready")[0] == 503
            assert time.monotonic() - started < 1.5
            status, _ = arena.server.call("POST", "/v1/users", {"user": "late"})
            assert status == 503
            assert time.monotonic() - started < 6
        other.execute("ROLLBACK")
    require_held(honest)
    assert arena.server.call("GET", "/ready")[0] == 200


def test_a_database_file_that_is_deleted(arena: Arena) -> None:
    away = arena.database.with_name("away.db")
    with arena.honest_users("database file deleted", is_named=False) as honest:
        arena.database.rename(away)
        time.sleep(1)
        assert arena.server.call("GET", "/ready")[0] == 503
        assert arena.server.call("POST", "/v1/users", {"user": "lost"})[0] == 503
        away.rename(arena.database)
        time.sleep(1)
    require_held(honest)
    assert arena.server.call("POST", "/v1/users", {"user": "lost"})[0] == 201


def test_a_user_who_is_erased_in_the_middle_of_answers_and_verdicts(arena: Arena) -> None:
    server, comes_back = arena.server, []
    body = {**TALK, "user": "erased", "max_tokens": 200, "stream": True}
    with arena.honest_users("erase races, 12") as honest:
        for number in range(12):
            first = server.must("POST", "/v1/chat/completions", {**TALK, "user": "erased"})
            verdict = {"response": first["id"], "kind": "thumbs", "thumbs": "up"}
            streams = [server.stream(body) for _ in range(3)]
            begun = [next(stream) for stream in streams]
            judge = threading.Thread(target=server.call, args=("POST", "/v1/feedback", verdict))
            judge.start()
            server.must("DELETE", "/v1/users/erased")
            for stream in streams:
                for _ in stream:
                    pass
            judge.join()
            assert len(begun) == 3
            if server.call("GET", "/v1/users/erased")[0] != 404:
                comes_back.append(number)
                server.must("DELETE", "/v1/users/erased")
    require_held(honest)
    assert comes_back == []


@pytest.mark.browser
def test_a_page_of_another_site_in_a_browser(arena: Arena, tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"Chromium is not installed at {CHROMIUM}; set PALATE_CHROMIUM")
    from playwright.sync_api import sync_playwright

    server = arena.server
    address = f"http://127.0.0.1:{server.port}"
    answer = server.must("POST", "/v1/chat/completions", {**TALK, "user": "victim"})
    server.must(
        "POST", "/v1/feedback", {"response": answer["id"], "kind": "thumbs", "thumbs": "up"}
    )

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<p>evil</p>")

        def log_message(self, *_arguments: object) -> None:
            pass

    script = """async (address) => {
      for (const path of ["/v1/users/victim/reset", "/v1/users", "/v1/chat/completions"])
        for (const type of ["text/plain", "application/json", ""])
          for (const mode of ["no-cors", "cors"])
            for (const method of ["POST", "DELETE"])
              try {
                await fetch(address + path, {method, mode, credentials: "include",
                  headers: type ? {"Content-Type": type} : {},
                  body: path.endsWith("reset") ? undefined : '{"user": "planted"}'});
              } catch {}
      const form = document.createElement("form");
      form.method = "POST"; form.action = address + "/v1/users/victim/reset";
      form.enctype = "text/plain"; document.body.append(form); form.submit();
    }"""
    calm = tmp_path / "chromium"  # it takes the server's processor as little as another machine
    calm.write_text(f'#!/bin/sh\nexec nice -n 10 {CHROMIUM} "$@"\n')
    calm.chmod(0o755)
    evil = ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=evil.serve_forever, daemon=True).start()
    try:
        with (
            arena.honest_users("cross-site posts, Chromium") as honest,
            sync_playwright() as playwright,
        ):
            flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            browser = playwright.chromium.launch(executable_path=str(calm), args=flags)
            page = browser.new_page()
            page.goto(f"http://localhost:{evil.server_port}/")
            page.evaluate(script, address)
            page.wait_for_load_state()
            browser.close()
    finally:
        evil.shutdown()
        evil.server_close()
    require_held(honest)
    assert server.must("GET", "/v1/users/victim")["belief"]["n_feedback"] == 1
    assert server.call("GET", "/v1/users/planted")[0] == 404


def test_kills_lose_no_verdict_that_was_acknowledged(arena: Arena) -> None:
    server, acknowledged, is_over = arena.server, [], threading.Event()

    def teach() -> None:
        while not is_over.is_set():
            answer = server.must("POST", "/v1/chat/completions", {**TALK, "user": "killed"})
            verdict = {"response": answer["id"], "kind": "thumbs", "thumbs": "up"}
            key = f"verdict-{len(acknowledged)}"
            server.must("POST", "/v1/feedback", {**verdict, "key": key})
            acknowledged.append(key)

    teacher = threading.Thread(target=teach)
    teacher.start()
    n_kills, until = 0, time.monotonic() + KILL_SECONDS
    while time.monotonic() < until:
        time.sleep(1.5)
        server.kill()
        server.start()
        n_kills += 1
    is_over.set()
    teacher.join()
    log = server.must("GET", "/v1/users/killed/export")["feedback"]
    keys = [item["key"] for item in log]
    told = (
        f"kills: {n_kills}, verdicts acknowledged: {len(acknowledged)}, "
        f"lost: {len(set(acknowledged) - set(keys))}, twice: {len(keys) - len(set(keys))}"
    )
    arena.lines.append(told)
    assert keys == acknowledged


@pytest.mark.postgres
def test_a_postgresql_that_is_frozen(arena: Arena, tmp_path: Path) -> None:
    url, folder = (os.environ.get(f"PALATE_TEST_POSTGRES_{name}") for name in ("URL", "FOLDER"))
    if not url or not folder:
        pytest.skip("no PostgreSQL of our own; `source .ci/postgres.sh` starts one")
    name = f"frozen_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    database = url.rsplit("/", 1)[0] + f"/{name}"
    settings = [*arena.server.settings]
    server = ServerProcess(arena.server.library, database, settings, log=tmp_path / "log")
    server.start()
    mother = int((Path(folder) / "data/postmaster.pid").read_text().split()[0])
    frozen: list[int] = []
    beside = Arena(server, arena.database)
    try:
        server.must("POST", "/v1/users", {"user": "ana"})
        with beside.honest_users("PostgreSQL frozen", is_named=False) as honest:
            for process in itertools.chain([mother], children(mother)):  # none is begun after it
                with suppress(ProcessLookupError):  # it has ended by itself
                    os.kill(int(process), signal.SIGSTOP)
                    frozen.append(int(process))
            for _ in range(3):
                started = time.monotonic()
                assert server.call("GET", "/ready")[0] == 503
                assert time.monotonic() - started < 1.5
                assert server.call("POST", "/v1/users", {"user": "late"})[0] == 503
                assert time.monotonic() - started < 8
            thaw(frozen)
    finally:
        thaw(frozen)
        arena.lines += beside.lines
        try:
            assert server.must("GET", "/v1/users/ana")["user"] == "ana"
        finally:
            server.kill()
    require_held(honest)


def thaw(frozen: list[int]) -> None:
    """Let these processes go on."""
    for process in frozen:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def children(mother: int) -> Iterator[str]:
    """Processes that this one started, when they are asked for."""
    yield from Path(f"/proc/{mother}/task/{mother}/children").read_text().split()
