"""Fault injection into the store: many processes write feedback, some are killed, nothing is lost.

Each worker appends its rows one by one and notes a row's key only after the store acknowledged it;
after every tenth row it withdraws an earlier one, and notes that too.
Some workers are killed with SIGKILL after a random number of acknowledgements and started again
from their first row, as a client would that does not know how far it came. In the end every
acknowledged row must be there once, every row must be there once, no withdrawn one may be learned
from, and every stored belief must equal the one rebuilt from the log, bit for bit.

It also measures rows per second: one process, one row a transaction and 100 rows a transaction,
against inserting the same rows without learning from them.
"""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

from palate.core.errors import CheckFailedError, InvalidInputError
from palate.core.seeds import generator_for
from palate.core.types import Belief, Feedback
from palate.preferences.belief import Learner
from palate.store.database import Database, open_database
from palate.store.export import export_user
from palate.store.rows import find_number, lock_user, read_belief, write_feedback
from palate.store.store import SqlProfileStore
from research.command_line import DatabaseUrl, IsJson, Seed, print_result, run

N_FEATURES = 8
N_TIMED = 1500  # rows of each throughput figure, in turns of 100
N_TIMED_USERS = 10
TIMED_BATCH = 100
WITHDRAWN = "withdrawn:"  # begins the note of a withdrawal
WITHDRAWN_EVERY, WITHDRAWN_BACK = 10, 5  # after so many rows, the one so many rows before


@dataclass(frozen=True)
class Drill:
    """How hard the store is tried.

    Attributes:
        url: Of a database without users.
        n_processes: Writers at once.
        n_rows: Of each writer.
        n_users: That all writers write about.
        n_killed: Writers killed with SIGKILL and started again.
        seed: Of feedback and kills.
    """

    url: str
    n_processes: int = 8
    n_rows: int = 1000
    n_users: int = 50
    n_killed: int = 2
    seed: int = 0


def run_drill(drill: Drill) -> dict[str, Any]:
    """Carry out the drill.

    Returns:
        Counts, the checks with their outcome, seconds, and rows per second.

    Raises:
        InvalidInputError: the database holds users already, or more are to be killed than run.
    """
    database = open_database(drill.url)
    store = _store(database)
    if store.users():
        raise InvalidInputError("The drill needs a database without users; give a new one.")
    if not 0 <= drill.n_killed <= drill.n_processes:
        raise InvalidInputError(
            f"{drill.n_killed} of {drill.n_processes} processes cannot be killed."
        )
    try:
        with TemporaryDirectory(prefix="palate-drill-") as folder:
            started = time.perf_counter()
            n_kills = _write_and_kill(drill, Path(folder))
            seconds = time.perf_counter() - started
            acknowledged = Counter(
                key
                for path in Path(folder).iterdir()
                for key in path.read_text(encoding="utf-8").split()
            )
        found = _check(store, drill, acknowledged)
        found |= {
            "kind": "users-drill",
            "database": database.engine.dialect.name,
            "n_processes": drill.n_processes,
            "n_rows_each": drill.n_rows,
            "n_users": drill.n_users,
            "n_kills": n_kills,
            "seconds": seconds,
            "rows_per_second": found["n_rows"] / seconds,
            "one_process": _throughput(database, drill.seed),
        }
    finally:
        database.close()
    return found


def require_passed(found: Mapping[str, Any]) -> None:
    """Fail where a check of the drill did not hold.

    Raises:
        CheckFailedError: naming the first such check.
    """
    for name, holds in found["checks"].items():
        if not holds:
            raise CheckFailedError(f"The drill failed: {name} does not hold.")


def drill_item(drill: Drill, worker: int, row: int) -> Feedback:
    """Row `row` of a worker: always the same, so that it can be sent again."""
    generator = generator_for(drill.seed, "row", worker, row)
    return Feedback(
        user=f"user {generator.integers(drill.n_users)}",
        kind="comparison",
        features=tuple(generator.standard_normal(N_FEATURES).tolist()),
        label=float(generator.integers(2)),
        key=f"{worker}-{row}",
    )


def write_rows(drill: Drill, worker: int, notes: Path) -> None:
    """What a worker process does: append row by row, noting each after its acknowledgement."""
    database = open_database(drill.url)
    store = _store(database)
    handle = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for row in range(drill.n_rows):
        item = drill_item(drill, worker, row)
        store.append(item)
        os.write(handle, f"{item.key}\n".encode())
        if row % WITHDRAWN_EVERY == WITHDRAWN_EVERY - 1:
            earlier = drill_item(drill, worker, row - WITHDRAWN_BACK)
            store.withdraw(earlier.user, earlier.key)
            os.write(handle, f"{WITHDRAWN}{earlier.key}\n".encode())
    os.close(handle)
    database.close()


def _write_and_kill(drill: Drill, folder: Path) -> int:
    context = multiprocessing.get_context("spawn")

    def begin(worker: int) -> BaseProcess:
        process = context.Process(target=write_rows, args=(drill, worker, folder / str(worker)))
        process.start()
        return process

    processes = {worker: begin(worker) for worker in range(drill.n_processes)}
    generator = generator_for(drill.seed, "kills")
    doomed = generator.choice(drill.n_processes, size=drill.n_killed, replace=False).tolist()
    n_kills = 0
    for worker in doomed:
        target = int(generator.integers(drill.n_rows // 10, drill.n_rows // 2 + 1))
        _wait_for_notes(folder / str(worker), target, processes[worker])
        if processes[worker].is_alive():
            processes[worker].kill()
            n_kills += 1
        processes[worker].join()
        processes[worker] = begin(worker)
    for worker, process in processes.items():
        process.join()
        if process.exitcode != 0:
            raise CheckFailedError(f"Worker {worker} ended with exit code {process.exitcode}.")
    return n_kills


def _wait_for_notes(path: Path, n_lines: int, process: BaseProcess) -> None:
    while process.is_alive():
        if path.exists() and path.read_bytes().count(b"\n") >= n_lines:
            return
        time.sleep(0.002)


def _check(store: SqlProfileStore, drill: Drill, acknowledged: Counter[str]) -> dict[str, Any]:
    log: Counter[str] = Counter()
    learned: set[str] = set()
    n_equal, names = 0, store.users()
    for name in names:
        export = export_user(store.database, tenant=store.tenant, user=name)
        log.update(item["key"] for item in export["feedback"] if item["kind"] != "withdrawal")
        learned.update(item.key for item in store.history(name))
        n_equal += is_same(*stored_and_rebuilt(store, name))
    wanted = {
        f"{worker}-{row}" for worker in range(drill.n_processes) for row in range(drill.n_rows)
    }
    withdrawn = {note.removeprefix(WITHDRAWN) for note in acknowledged if WITHDRAWN in note}
    rows = [note for note in acknowledged if WITHDRAWN not in note]
    return {
        "n_rows": sum(log.values()),
        "n_acknowledged": len(rows),
        "n_withdrawn": len(withdrawn),
        "n_beliefs_equal": n_equal,
        "n_beliefs": len(names),
        "checks": {
            "every acknowledged row is there once": all(log[key] == 1 for key in rows),
            "every row is there once": set(log) == wanted and set(log.values()) == {1},
            "what was withdrawn, and nothing else, is not learned from": learned
            == wanted - withdrawn,
            "every belief equals its rebuild": n_equal == len(names),
        },
    }


def stored_and_rebuilt(store: SqlProfileStore, user: str) -> tuple[Belief | None, Belief]:
    """A user's belief as it is stored (`None` where absent or stale), and rebuilt from the log."""
    with store.database.reading() as connection:
        number = find_number(connection, tenant=store.tenant, name=user)
        belief, learner = (None, "") if number is None else read_belief(connection, number)
        is_current = learner == store.learner.digest
        return belief if is_current else None, store.learner.rebuild(store.history(user))


def is_same(stored: Belief | None, rebuilt: Belief) -> bool:
    """Whether a stored belief is the rebuilt one, bit for bit."""
    return (
        stored is not None
        and np.array_equal(stored.mean, rebuilt.mean)
        and np.array_equal(stored.covariance, rebuilt.covariance)
        and stored.n_observations == rebuilt.n_observations
        and stored.gain == rebuilt.gain
    )


def _throughput(database: Database, seed: int) -> dict[str, float]:
    """Rows a second of one process, and how much of a bare insert's speed learning leaves."""
    timing = Drill(url="", n_users=N_TIMED_USERS, seed=seed + 1)
    store = _store(database, tenant="timed")

    def bare(items: list[Feedback]) -> None:
        for item in items:
            with database.writing() as connection:
                user = lock_user(connection, tenant="bare", name=item.user)
                write_feedback(connection, user, item)

    def one_by_one(items: list[Feedback]) -> None:
        for item in items:
            store.append(item)

    seconds: dict[str, list[float]] = {"bare": [], "one by one": []}
    for turn in range(N_TIMED // TIMED_BATCH):
        rows = range(turn * TIMED_BATCH, (turn + 1) * TIMED_BATCH)
        items = [drill_item(timing, 0, row) for row in rows]
        for name, write in (("bare", bare), ("one by one", one_by_one)):
            started = time.perf_counter()
            write(items)
            seconds[name].append(time.perf_counter() - started)
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "rows_per_second": TIMED_BATCH / median["one by one"],
        "rows_per_second_inserted_without_learning": TIMED_BATCH / median["bare"],
        "speed_over_insert_without_learning": median["bare"] / median["one by one"],
    }


def _store(database: Database, tenant: str = "default") -> SqlProfileStore:
    return SqlProfileStore(
        database, Learner(Belief(np.zeros(N_FEATURES), np.eye(N_FEATURES))), tenant=tenant
    )


def main(  # noqa: PLR0913  a command's options are its parameters
    *,
    database: DatabaseUrl,
    processes: Annotated[int, typer.Option(min=1, help="Writers at once.")] = 8,
    rows: Annotated[int, typer.Option(min=1, help="Of each writer.")] = 1000,
    users: Annotated[int, typer.Option(min=1, help="That all write about.")] = 50,
    kills: Annotated[int, typer.Option(min=0, help="Writers killed and started again.")] = 2,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Writers on a new database are killed; no acknowledged row may be lost."""
    found = run_drill(Drill(database, processes, rows, users, kills, seed))
    print_result(found, is_json=is_json)
    require_passed(found)


if __name__ == "__main__":
    run(main)
