"""Replicas under load, one killed: what the drill counts, and the drill itself on a local Ray."""

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psycopg
import pytest

from palate.core.errors import CheckFailedError
from palate.core.types import Belief
from palate.serve.replicas import REPLICA
from research.preferences.store_faults import is_same, require_passed
from research.serving.replicas_under_load import (
    AWAY,
    BEFORE,
    Attempt,
    Load,
    ReplicaDrillSettings,
    drill_replicas,
    phase_rates,
)


class Flaky(BaseHTTPRequestHandler):
    """Keeps feedback; every third piece is kept without a word, every fourth answer is a 503."""

    kept: dict[str, int]
    n_feedback: int
    n_answers: int
    stop_at: int
    load: Load

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = type(self)
        if self.path == "/v1/feedback":
            server.n_feedback += 1
            is_new = body["key"] not in server.kept
            server.kept[body["key"]] = server.kept.get(body["key"], 0) + is_new
            if len(server.kept) == server.stop_at:
                server.load.is_over.set()
            if is_new and len(server.kept) % 3 == 0:
                self.close_connection = True  # kept, but nobody hears of it
                return
            self._say(200, {"is_new": is_new}, "b")
        else:
            server.n_answers += 1
            if server.n_answers % 4 == 0:
                self._say(503, {"error": "away"}, "")
            else:
                self._say(200, {"id": "shown"}, "a" if server.n_answers % 2 else "b")

    def _say(self, status: int, found: dict[str, object], replica: str) -> None:
        content = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if replica:
            self.send_header(REPLICA, replica)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args: object) -> None:
        return


@pytest.fixture
def flaky() -> Iterator[tuple[Load, type[Flaky]]]:
    class Server(Flaky):
        kept: dict[str, int] = {}  # noqa: RUF012  one class for each test
        n_feedback, n_answers, stop_at = 0, 0, 6

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    Server.load = Load(listening.server_address[1], max_tokens=4)
    yield Server.load, Server
    listening.shutdown()
    listening.server_close()
    thread.join()


def test_a_lost_acknowledgement_is_asked_for_again_and_counted_once(
    flaky: tuple[Load, type[Flaky]],
) -> None:
    load, server = flaky
    load.user("ann")
    assert load.acknowledged == {"ann": [f"ann-{k}" for k in range(6)]}
    assert server.kept == {f"ann-{k}": 1 for k in range(6)}
    assert load.replayed == ["ann-2", "ann-5"]  # the third and the sixth
    assert server.n_feedback == 6 + 2
    # six answers came: the first to the third, the fourth was refused, then five to seven
    outcomes = [one.outcome for one in load.attempts if one.kind == "answer"]
    assert outcomes == ["200"] * 3 + ["503"] + ["200"] * 3
    assert [one.outcome for one in load.attempts].count("connection") == 2
    assert [author for author, _ in load.pairs] == ["a", "b", "a", "a", "b", "a"]
    assert load.n_across == 4


def test_a_refusal_is_not_tried_again(flaky: tuple[Load, type[Flaky]]) -> None:
    load, server = flaky
    server._say = lambda self, *_: Flaky._say(self, 404, {"error": "who?"}, "a")  # type: ignore[method-assign]
    with pytest.raises(CheckFailedError, match="answered with 404"):
        load.user("ann")
    assert len(load.attempts) == 1


def test_error_rates_are_of_a_phase_and_carry_their_interval() -> None:
    some = [Attempt("answer", BEFORE, "200", "a", 0.1)] * 3
    some += [Attempt("feedback", AWAY, "200", "a", 0.2)] * 8
    some += [Attempt("feedback", AWAY, outcome, "", 0.2) for outcome in ("connection", "503")]
    found = phase_rates(some, AWAY)
    assert (found["n"], found["n_failed"], found["error_rate"]) == (10, 2, 0.2)
    assert found["outcomes"] == {"connection": 1, "503": 1}
    # Wilson by hand: z^2 = 3.8415, centre (0.2 + 0.19207) / 1.38415, half-width 0.22658
    assert found["low"] == pytest.approx(0.05668, abs=1e-4)
    assert found["high"] == pytest.approx(0.50984, abs=1e-4)
    assert phase_rates(some, BEFORE)["n_failed"] == 0


def test_beliefs_are_the_same_only_bit_for_bit() -> None:
    one = Belief(np.array([0.1, 0.2]), np.eye(2), 3)
    assert is_same(one, replace(one))
    assert not is_same(None, one)
    assert not is_same(one, replace(one, mean=one.mean + 1e-17 + np.spacing(0.2)))
    assert not is_same(one, replace(one, n_observations=4))


def test_a_check_that_does_not_hold_is_named() -> None:
    require_passed({"checks": {"all is well": True}})
    with pytest.raises(CheckFailedError, match="nothing is kept twice does not hold"):
        require_passed({"checks": {"all is well": True, "nothing is kept twice": False}})


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.postgres
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed; docs/scale.md says how")
def test_a_replica_killed_under_load_loses_nothing_that_was_acknowledged(
    tiny_library: Path,
) -> None:
    server = os.environ.get("PALATE_TEST_POSTGRES_URL")
    if not server:
        pytest.skip("no PostgreSQL; `source .ci/postgres.sh` starts one")
    name = f"replicas_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    url = server.rsplit("/", 1)[0] + f"/{name}"
    found = drill_replicas(tiny_library, url, ReplicaDrillSettings())
    require_passed(found)
    assert found["n_kept"] == found["n_acknowledged"] >= 8 * 10
    assert found["n_replicas_seen"] == 3  # two, and the one that took the victim's place
    assert found["phases"]["all there"]["n_failed"] == 0
    assert found["phases"][AWAY]["n"] > 0
    assert len(found["seconds_until_replaced"]) == 1
