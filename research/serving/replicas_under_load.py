"""Replicas under load, one killed (SIGKILL) now and then; is anything lost?

Users ask for answers and judge them, every judgement under an idempotency key. A request that
fails is sent again with the same key, as a careful client would. While this goes on, a replica's
process is killed, and the load goes on until another has taken its place. In the end every
acknowledged judgement must be in the log once, and every stored belief must equal the one that is
rebuilt from the log, bit for bit.
"""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pydantic import Field

from palate import Library
from palate.build.ray_cluster import require_ray
from palate.core.errors import CheckFailedError, InvalidInputError
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.core.settings import Settings
from palate.metrics.intervals import wilson_interval
from palate.serve.assemble import assemble
from palate.serve.replicas import REPLICA, require_shared
from palate.serve.settings import ServeSettings
from palate.store.database import open_database
from palate.store.users import list_users
from research.preferences.store_faults import is_same, stored_and_rebuilt
from research.serving.server_process import FREE, ServerProcess

RETRY_SECONDS = 0.1
GIVE_UP_SECONDS = 120.0  # on one request, or on a replica that does not come back
QUESTION = "What is a lighthouse?"
TITLE = "ray::ServeReplica"  # of a replica's process
BEFORE, AWAY, AFTER = "all there", "one away", "all there again"


class ReplicaDrillSettings(Settings):
    """How hard the replicas are tried.

    Attributes:
        n_replicas: That answer.
        n_users: Who ask and judge at once.
        n_warm: Judgements of each before the first kill, and after the last.
        n_kills: One after the other, each when the last victim's place is taken.
        max_tokens: Of an answer.
        seed: Of whom is killed.
    """

    n_replicas: int = Field(default=2, ge=2)
    n_users: int = Field(default=8, ge=1)
    n_warm: int = Field(default=5, ge=1)
    n_kills: int = Field(default=1, ge=1)
    max_tokens: int = Field(default=8, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class Attempt:
    """One request as sent once.

    Attributes:
        kind: `answer` or `feedback`.
        phase: In which it ended, so that what was under way at a kill counts as during it.
        outcome: `200`, another status, or `connection`.
        replica: Who answered; empty where nobody did.
        seconds: Until its end.
    """

    kind: str
    phase: str
    outcome: str
    replica: str
    seconds: float


@dataclass(eq=False)
class Load:
    """Users at work, and what they saw; shared by their threads.

    Attributes:
        port: Of the server.
        max_tokens: Of an answer.
        phase: Now.
        is_over: Tells users to stop.
        attempts: Every request as sent.
        acknowledged: Keys by user.
        replayed: Keys that were kept at the first sending though its answer was lost.
        pairs: Replica of the answer and of the judgement.
    """

    port: int
    max_tokens: int
    phase: str = BEFORE
    is_over: threading.Event = field(default_factory=threading.Event)
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    acknowledged: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    replayed: list[str] = field(default_factory=list[str])
    pairs: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def n_across(self) -> int:
        """Judgements given to another replica than the one that had answered."""
        return sum(author != reader for author, reader in self.pairs)

    def user(self, name: str) -> None:
        """Ask and judge until told to stop."""
        said = self.acknowledged.setdefault(name, [])
        while not self.is_over.is_set():
            number = len(said)
            shown, author = self._must(
                "answer",
                "/v1/chat/completions",
                {
                    "model": "palate",
                    "messages": [{"role": "user", "content": QUESTION}],
                    "n": 2,
                    "max_tokens": self.max_tokens,
                    "palate": {"user": name},
                },
            )
            verdict: dict[str, Any] = {"kind": "comparison", "preferred": number % 3 % 2}
            if number % 2:
                verdict = {"kind": "thumbs", "thumbs": "up" if number % 3 else "down"}
            key = f"{name}-{number}"
            _, reader = self._must(
                "feedback", "/v1/feedback", {"response": shown["id"], "key": key, **verdict}
            )
            self.pairs.append((author, reader))
            said.append(key)

    def _must(self, kind: str, path: str, body: Mapping[str, Any]) -> tuple[Any, str]:
        """JSON and author of a request that is sent again until it succeeds."""
        deadline = time.monotonic() + GIVE_UP_SECONDS
        n_sent = 0
        while True:
            start = time.monotonic()
            outcome, replica = "connection", ""
            found: Any = None
            with suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
                outcome, replica, found = _send(self.port, path, body)
            seconds = time.monotonic() - start
            self.attempts.append(Attempt(kind, self.phase, outcome, replica, seconds))
            n_sent += 1
            if outcome == "200":
                if kind == "feedback" and not found["is_new"]:
                    if n_sent == 1:
                        raise CheckFailedError(f"{path} kept a key before it was sent.")
                    self.replayed.append(str(body["key"]))
                return found, replica
            if outcome.startswith("4") or time.monotonic() > deadline:
                raise CheckFailedError(f"{path} was answered with {outcome}: {found}.")
            time.sleep(RETRY_SECONDS)


def drill_replicas(library: Path, database: str, settings: ReplicaDrillSettings) -> dict[str, Any]:
    """Start replicas, load them, kill some, and check what is left.

    Returns:
        Counts, error rates by phase with intervals, seconds until each victim was replaced, and
        the checks with their outcome.

    Raises:
        InvalidInputError: the database holds users already, or is not PostgreSQL.
        MissingExtraError: Ray is not installed.
        CheckFailedError: the replicas do not start, a request keeps failing, or a victim is not
            replaced.
    """
    require_ray()
    require_shared(database)
    with closing(open_database(database)) as opened:
        has_users = bool(list_users(opened, tenant="default"))
    if has_users:
        raise InvalidInputError("The drill needs a database without users; give a new one.")
    words = ("serve", "--replicas", str(settings.n_replicas))
    server = ServerProcess(library, database, FREE, words=words)
    try:
        server.start()
        load = Load(server.port, settings.max_tokens)
        seconds = _loaded(server, load, settings)
        code = server.stop()
    finally:
        server.kill()
    found = {**_story(load, settings, seconds), **_checked(library, database, load)}
    found["checks"]["the server ends well when told to"] = code == 0
    return found


def replica_processes(server: int) -> list[psutil.Process]:
    """Processes of the replicas that this server started, by number."""
    found: list[psutil.Process] = []
    for process in psutil.Process(server).children(recursive=True):
        with suppress(psutil.Error):
            if "".join(process.cmdline()[:1]).startswith(TITLE):
                found.append(process)
    return sorted(found, key=lambda process: process.pid)


def _loaded(server: ServerProcess, load: Load, settings: ReplicaDrillSettings) -> list[float]:
    """Seconds that each victim's place was empty, with users at work all the while."""
    generator = generator_for(settings.seed, "replicas")
    seconds: list[float] = []
    users = [f"user-{place}" for place in range(settings.n_users)]
    with progress_of("kills") as report, ThreadPoolExecutor(settings.n_users) as pool:
        work = [pool.submit(load.user, name) for name in users]
        try:
            for number in range(settings.n_kills):
                n_names = settings.n_replicas + number  # all have answered, also the newest
                _wait_for(work, lambda n=n_names: _is_warm(load, users, settings.n_warm, n))
                victims = replica_processes(server.process_id)
                if len(victims) != settings.n_replicas:
                    raise CheckFailedError(
                        f"{len(victims)} processes of replicas were found, not "
                        f"{settings.n_replicas}."
                    )
                known = {one.replica for one in list(load.attempts)}
                load.phase, start = AWAY, time.monotonic()
                victims[int(generator.integers(len(victims)))].kill()
                _wait_for(work, lambda known=known: _is_replaced(load, known))
                seconds.append(time.monotonic() - start)
                load.phase = AFTER
                report(number + 1, settings.n_kills)
            goal = _n_least(load, users) + settings.n_warm
            _wait_for(work, lambda: _n_least(load, users) >= goal)
        finally:
            load.is_over.set()
        for one in work:
            one.result()
    return seconds


def _wait_for(work: list[Any], holds: Any) -> None:
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while not holds():
        for one in work:
            if one.done():
                one.result()  # raises what ended it
        if time.monotonic() > deadline:
            raise CheckFailedError(f"Nothing came for {GIVE_UP_SECONDS:.0f} seconds under load.")
        time.sleep(0.05)


def _n_least(load: Load, users: list[str]) -> int:
    return min(len(load.acknowledged.get(name, [])) for name in users)


def _is_warm(load: Load, users: list[str], n_least: int, n_names: int) -> bool:
    names = {one.replica for one in list(load.attempts) if one.replica}
    return _n_least(load, users) >= n_least and len(names) >= n_names


def _is_replaced(load: Load, known: set[str]) -> bool:
    return any(one.replica and one.replica not in known for one in list(load.attempts))


def _story(load: Load, settings: ReplicaDrillSettings, seconds: list[float]) -> dict[str, Any]:
    replicas = Counter(one.replica for one in load.attempts if one.replica)
    return {
        "settings": settings.model_dump(),
        "n_requests": len(load.attempts),
        "n_replicas_seen": len(replicas),
        "answers_by_replica": sorted(replicas.values(), reverse=True),
        "n_acknowledged": sum(map(len, load.acknowledged.values())),
        "n_sent_again_and_found": len(load.replayed),
        "n_judged_at_another_replica": load.n_across,
        "seconds_until_replaced": seconds,
        "phases": {phase: phase_rates(load.attempts, phase) for phase in (BEFORE, AWAY, AFTER)},
    }


def phase_rates(attempts: Sequence[Attempt], phase: str) -> dict[str, Any]:
    """Failed requests of a phase, with the 95 % interval of independent trials."""
    some = [one for one in attempts if one.phase == phase]
    failed = Counter(one.outcome for one in some if one.outcome != "200")
    n_failed = sum(failed.values())
    low, high = wilson_interval(n_failed, len(some))
    seconds = [one.seconds for one in some]
    return {
        "n": len(some),
        "n_failed": n_failed,
        "error_rate": n_failed / len(some) if some else 0.0,
        "low": low,
        "high": high,
        "outcomes": dict(failed),
        "p50_seconds": float(np.quantile(seconds, 0.5)) if seconds else 0.0,
        "p95_seconds": float(np.quantile(seconds, 0.95)) if seconds else 0.0,
    }


def _checked(library: Path, database: str, load: Load) -> dict[str, Any]:
    """What the database holds, against what was acknowledged."""
    served = assemble(Library.load(library), ServeSettings(), database=database)
    store = served.store("default")
    try:
        kept = {name: [item.key for item in store.history(name)] for name in store.users()}
        beliefs = [stored_and_rebuilt(store, name) for name in kept]
    finally:
        served.database.close()
    acknowledged = {key for keys in load.acknowledged.values() for key in keys}
    counts = Counter(key for keys in kept.values() for key in keys)
    n_equal = sum(is_same(stored, rebuilt) for stored, rebuilt in beliefs)
    return {
        "n_kept": counts.total(),
        "n_lost": len(acknowledged - counts.keys()),
        "n_twice": sum(count > 1 for count in counts.values()),
        "n_beliefs_equal_to_rebuilt": n_equal,
        "n_beliefs": len(beliefs),
        "checks": {
            "every acknowledged judgement is kept": acknowledged <= counts.keys(),
            "nothing is kept twice": all(count == 1 for count in counts.values()),
            "nothing is kept that was not said": counts.keys() <= acknowledged,
            "beliefs equal those rebuilt from the log": n_equal == len(beliefs) > 0,
            "feedback is taken by replicas that did not answer": load.n_across > 0,
        },
    }


def _send(port: int, path: str, body: Mapping[str, Any]) -> tuple[str, str, Any]:
    """Status, author and JSON of one request on a connection of its own.

    Raises:
        OSError: nobody listens, or the connection broke.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        kind = response.headers.get("content-type", "")
        found = json.loads(content) if kind.startswith("application/json") else content.decode()
        return str(response.status), response.headers.get(REPLICA, ""), found
    finally:
        connection.close()
