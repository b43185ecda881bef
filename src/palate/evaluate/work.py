"""The work of a comparison, cut into jobs: one method's answers to a block of prompts, judged.

The base answers a seed's prompts first, since some judges compare with its answers. Jobs are done
in this process or shared by several; one place writes the rows, so their file has one writer.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.process import parent_process
from threading import Thread

import torch

from palate.core.errors import PalateError
from palate.core.progress import progress_of
from palate.evaluate.catalogue import AUTO, BASE, IMPLICIT
from palate.evaluate.context import Context
from palate.evaluate.facts import STORED, entrant_facts
from palate.evaluate.fill import fill_entrant
from palate.evaluate.rows import Results, Row
from palate.evaluate.suite import Suite

BLOCK = 192  # answers of one job, which an interruption can cost
OpenContext = Callable[[int], Context]  # of a seed; picklable for several processes


@dataclass(frozen=True)
class Job:
    """One method's answers to some prompts with one seed; the first also measures its facts."""

    seed: int
    method: str
    prompts: tuple[str, ...]
    with_facts: bool


@dataclass(eq=False)
class Worker:
    """Does jobs; keeps the contexts that it has opened."""

    open_context: OpenContext
    _contexts: dict[int, Context] = field(default_factory=dict[int, Context])

    def __call__(self, job: Job, rows: Sequence[Row]) -> list[Row]:
        """The rows of the job that are not among those of its seed."""
        context, results = self.context(job.seed), Results(None, list(rows))
        fill_entrant(context, job.method, job.prompts, results=results)
        if job.with_facts and not _has_facts(results, job):
            results.append(entrant_facts(context, job.method))
        return results.rows[len(rows) :]

    def context(self, seed: int) -> Context:
        """The seed's context, opened once."""
        if seed not in self._contexts:
            self._contexts[seed] = self.open_context(seed)
        return self._contexts[seed]


def jobs_of(suite: Suite, prompts: Sequence[str], results: Results) -> list[Job]:
    """What is still to be done: bases first, then what takes longest, last what reuses answers."""
    size = max(1, BLOCK // (len(suite.users) * suite.n_per_prompt))
    jobs = [
        Job(seed, method, tuple(prompts[at : at + size]), with_facts=at == 0)
        for seed in suite.seeds
        for at in range(0, len(prompts), size)
        for method in suite.methods
    ]
    missing = [
        job
        for job in jobs
        if (job.with_facts and not _has_facts(results, job)) or _lacks_answers(suite, job, results)
    ]
    order = {BASE: 0, IMPLICIT: 1, AUTO: 3}
    return sorted(missing, key=lambda job: order.get(job.method, 2))


def run_jobs(jobs: Sequence[Job], worker: Worker, *, results: Results, n_workers: int = 1) -> None:
    """Do all jobs and append their rows; the first that fails ends the others.

    Raises:
        PalateError: a job failed, or a process ended by itself.
    """
    with progress_of("evaluation, jobs") as report:
        n_done = 0

        def collect(rows: Sequence[Row]) -> None:
            nonlocal n_done
            n_done += 1
            results.append(rows)
            report(n_done, len(jobs))

        if n_workers == 1 or len(jobs) < 2:
            for job in jobs:
                collect(worker(job, _rows_of(results, job.seed)))
            return
        try:
            with worker_pool(n_workers, worker) as pool:
                _share(deque(jobs), pool, results, collect, n_workers=n_workers)
        except BrokenProcessPool as error:
            raise PalateError(
                "A process ended by itself, as when memory runs out; finished rows are in the "
                "results file, so run again, with --workers 1 if it happens twice."
            ) from error


def worker_pool(n_workers: int, worker: Worker | None = None) -> ProcessPoolExecutor:
    """Processes of one thread each, started afresh, that end with this one."""
    return ProcessPoolExecutor(
        n_workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(worker,)
    )


def _share(
    waiting: deque[Job],
    pool: ProcessPoolExecutor,
    results: Results,
    collect: Callable[[Sequence[Row]], None],
    *,
    n_workers: int,
) -> None:
    """Each process gets its next job with the rows that are there by then."""
    running: dict[Future[list[Row]], Job] = {}
    try:
        while waiting or running:
            while waiting and len(running) < n_workers:
                bases = any(other.method == BASE for other in running.values())
                if bases and waiting[0].method != BASE:  # bases go first, every other job after
                    break
                job = waiting.popleft()
                running[pool.submit(_do, job, _rows_of(results, job.seed))] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                collect(future.result())
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _rows_of(results: Results, seed: int) -> list[Row]:
    return [row for row in results.rows if row.seed == seed]


def _has_facts(results: Results, job: Job) -> bool:
    return ("fact", STORED, job.method, "", job.seed) in results


def _lacks_answers(suite: Suite, job: Job, results: Results) -> bool:
    return any(
        ("answer", job.method, user.name, job.seed, prompt, copy) not in results
        for user in suite.users
        for prompt in job.prompts
        for copy in range(suite.n_per_prompt)
    )


_WORKERS: list[Worker | None] = []  # one, where this process is one of several


def _do(job: Job, rows: Sequence[Row]) -> list[Row]:
    (worker,) = _WORKERS
    return [] if worker is None else worker(job, rows)


def _begin(worker: Worker | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a process without a traceback
    os.environ["TTY_COMPATIBLE"] = "0"  # plain lines of progress: several bars would overwrite
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()
    _WORKERS[:] = [worker]


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
