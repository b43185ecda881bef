"""A server that is killed, a database that goes away under load: nothing acknowledged is lost."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from research.serving.server_process import FREE, ServerProcess

pytestmark = pytest.mark.slow
N_USERS, N_ITEMS = 6, 12
TALK = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def start(tiny_library: Path, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    running: list[ServerProcess] = []

    def make(database: str, *settings: str) -> ServerProcess:
        server = ServerProcess(
            tiny_library, database, (*FREE, *settings), log=tmp_path / "server.log"
        )
        server.start()
        running.append(server)
        return server

    yield make
    for server in running:
        server.kill()


def teach(server: ServerProcess, user: str, said: list[str]) -> None:
    """Feedback with keys; `said` holds what was acknowledged."""
    for number in range(N_ITEMS):
        answer = server.must(
            "POST",
            "/v1/chat/completions",
            {"model": "palate", "messages": TALK, "max_tokens": 3, "palate": {"user": user}},
        )
        thumbs = "up" if number % 3 else "down"
        body = {"response": answer["id"], "kind": "thumbs", "thumbs": thumbs}
        server.must("POST", "/v1/feedback", {**body, "key": f"{user}-{number}"})
        said.append(f"{user}-{number}")


def taught_while(server: ServerProcess, disturb: Callable[[], None]) -> None:
    """All users teach at once, something happens in the middle, everything is there at the end."""
    users = [f"p{k}" for k in range(N_USERS)]
    said: dict[str, list[str]] = {name: [] for name in users}
    with ThreadPoolExecutor(N_USERS) as pool:
        done = [pool.submit(teach, server, name, said[name]) for name in users]
        while sum(map(len, said.values())) < N_USERS * N_ITEMS // 3:
            time.sleep(0.05)
        disturb()
        for future in done:
            future.result()
    for name in users:
        export = server.must("GET", f"/v1/users/{name}/export")
        kept = [item["key"] for item in export["feedback"]]
        assert kept == said[name] == [f"{name}-{k}" for k in range(N_ITEMS)]
        shown = server.must("GET", f"/v1/users/{name}")
        assert shown["belief"]["n_feedback"] == N_ITEMS
        assert export["belief"]["n_observations"] == N_ITEMS


def test_a_killed_server_has_lost_nothing_that_it_acknowledged(
    start: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = start(f"sqlite:///{tmp_path / 'users.db'}")

    def kill() -> None:
        server.kill()
        server.start()

    taught_while(server, kill)


@pytest.mark.postgres
@pytest.mark.alone
def test_a_database_that_is_restarted_under_load_has_lost_nothing(
    start: Callable[..., ServerProcess],
) -> None:
    url, folder = (os.environ.get(f"PALATE_TEST_POSTGRES_{name}") for name in ("URL", "FOLDER"))
    if not url or not folder:
        pytest.skip("no PostgreSQL of our own; `source .ci/postgres.sh` starts one")
    name = f"serve_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    (pg_ctl,) = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))[-1:]
    command = [str(pg_ctl), "-D", f"{folder}/data", "-w", "-m", "immediate", "-l", f"{folder}/log"]
    if os.getuid() == 0:
        command = ["runuser", "-u", "postgres", "--", *command]

    def restart() -> None:
        subprocess.run([*command, "restart"], check=True, stdout=subprocess.DEVNULL)
        time.sleep(0.5)

    taught_while(start(url.rsplit("/", 1)[0] + f"/{name}"), restart)


def test_a_server_that_is_told_to_stop_ends_the_answers_that_run(
    start: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = start(f"sqlite:///{tmp_path / 'users.db'}", "max_tokens=200")
    body = {"model": "palate", "messages": TALK, "max_tokens": 200, "stream": True, "seed": 1}
    ends: list[str | None] = []
    is_under_way = threading.Event()

    def read() -> None:
        for chunk in server.stream(body):
            is_under_way.set()
            ends.extend(choice["finish_reason"] for choice in chunk["choices"])

    reader = threading.Thread(target=read)
    reader.start()
    assert is_under_way.wait(60)
    server.ask_to_stop()
    reader.join(timeout=60)
    assert ends[-1] in ("stop", "length")  # the whole answer came
    assert server.stop() in (0, -signal.SIGTERM)
