"""Jobs done by several processes, each as soon as what it needs is done; the caller collects.

Workers are started afresh (`spawn`) and end with the process that started them. What a job gives is
handed back and collected in one place, so files that the caller writes have one writer.
"""

import os
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess, parent_process
from threading import Thread
from typing import Any

from palate.core.errors import PalateError

Do = Callable[[Any], Any]


@dataclass(frozen=True)
class Job:
    """Something to be done.

    Attributes:
        name: Different for every job; for messages.
        order: What the worker is told.
        needs: Names of jobs that come before.
    """

    name: str
    order: Any
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Failure:
    kind: type[PalateError]
    sentence: str


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


def run_jobs(
    jobs: Sequence[Job],
    *,
    begin: Callable[[], Do],
    brief: Callable[[Job], Any],
    collect: Callable[[Job, Any], None],
    n_workers: int,
) -> None:
    """Do all jobs; the first that fails ends the others.

    Args:
        jobs: In the order of preference; what a job needs stands before it.
        begin: Called once in each process; gives what does the jobs. Picklable.
        brief: Job to what the worker is given, asked when the job begins.
        collect: Gets each job's outcome, in this process.
        n_workers: Processes; with one, everything is done in this process.

    Raises:
        PalateError: a job failed, as the class and the sentence that it failed with; or a process
            ended by itself.
    """
    if n_workers == 1 or len(jobs) < 2:
        do = begin()
        for job in jobs:
            collect(job, do(brief(job)))
        return
    context = get_context("spawn")
    pool: list[_Worker] = []
    try:
        for _ in range(min(n_workers, len(jobs))):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(there, begin), daemon=True)
            process.start()
            there.close()
            pool.append(_Worker(process, here))
        _direct(pool, list(jobs), brief, collect)
    finally:
        for worker in pool:
            worker.process.terminate()
            worker.process.join()
            worker.pipe.close()


def _direct(
    pool: Sequence[_Worker],
    waiting: list[Job],
    brief: Callable[[Job], Any],
    collect: Callable[[Job, Any], None],
) -> None:
    open_names = {job.name for job in waiting}
    while open_names:
        for worker in pool:
            ready = next((job for job in waiting if not job.needs & open_names), None)
            if worker.job is None and ready is not None:
                waiting.remove(ready)
                worker.job = ready
                worker.pipe.send(brief(ready))
        busy = {worker.pipe: worker for worker in pool if worker.job is not None}
        for pipe in connection.wait(list(busy)):
            worker = busy[pipe]  # type: ignore[index]
            job, worker.job = worker.job, None
            if job is not None:
                collect(job, _received(worker, job))
                open_names.remove(job.name)


def _received(worker: _Worker, job: Job) -> Any:
    try:
        outcome = worker.pipe.recv()
    except (EOFError, ConnectionError) as error:
        worker.process.join()
        raise PalateError(
            f"The process that did {job.name!r} ended by itself (exit code "
            f"{worker.process.exitcode}), as when memory runs out; what was finished is kept, so "
            "run again, with --workers 1 if it happens twice."
        ) from error
    if isinstance(outcome, _Failure):
        raise outcome.kind(outcome.sentence)
    return outcome


def _work(pipe: Connection, begin: Callable[[], Do]) -> None:
    """What a process does until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter ends us
    os.environ["TTY_COMPATIBLE"] = "0"  # plain lines of progress: several bars would overwrite
    Thread(target=_end_with_parent, daemon=True).start()
    do: Do | None = None
    with suppress(EOFError):
        while True:
            told = pipe.recv()
            try:
                do = do or begin()
                outcome = do(told)
            except PalateError as error:
                outcome = _Failure(type(error), str(error))
            except Exception as error:  # noqa: BLE001  one sentence for the caller, the rest for us
                traceback.print_exc()
                outcome = _Failure(
                    PalateError,
                    f"A job failed with {type(error).__name__} ({error}); its trace is above, and "
                    "what was finished is kept.",
                )
            pipe.send(outcome)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
