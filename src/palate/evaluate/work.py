"""The work of a comparison, cut into jobs: one method's answers to a block of prompts, judged.

The base answers a seed's prompts first, since some judges compare with its answers. Jobs are done
in this process or shared by several; one place writes the rows, so their file has one writer. No
text is generated twice.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from multiprocessing import connection, get_context
from multiprocessing.process import parent_process
from threading import Thread

import torch

from palate.core.decision import Decision
from palate.core.errors import PalateError
from palate.core.progress import progress_of
from palate.evaluate.catalogue import AUTO, BASE, IMPLICIT
from palate.evaluate.context import Context, Entrant
from palate.evaluate.facts import STORED, entrant_facts
from palate.evaluate.judges import Candidate
from palate.evaluate.rows import AnswerRow, Results, Row, answer_hash
from palate.evaluate.suite import Suite, UserSettings
from palate.library.generate import generate_all

_PACKAGES = ("palate", "torch")


@dataclass(frozen=True)
class Answer:
    """An answer that was generated; see `AnswerRow`."""

    text: str
    n_tokens: int
    lead: float
    log_ratio: float | None


@dataclass(frozen=True, eq=False)
class Missing:
    """An answer row that is missing; `answer` is the hash of everything that determines it."""

    user: UserSettings
    prompt: str
    copy: int
    decision: Decision
    answer: str


def fill_entrant(context: Context, name: str, prompts: Sequence[str], *, results: Results) -> None:
    """Append the missing rows of one entrant to these prompts.

    Texts that another entrant or user already has (the same plan, words and seed) are taken from
    there: what `auto` decides on is mostly another entrant's.

    Raises:
        InvalidInputError: the method is unknown, or the library lacks what it needs.
    """
    entrant = context.entrant(name)
    missing = _missing(context, entrant, prompts, results)
    known = {
        row.answer: Answer(row.text, row.n_tokens, row.lead, row.log_ratio)
        for row in results.answers
    }
    references = {
        (row.user, row.prompt, row.copy): row.text
        for row in results.answers
        if row.method == BASE and row.seed == context.task.seed
    }
    for start in range(0, len(missing), BLOCK):
        block = missing[start : start + BLOCK]
        known |= _make(context, entrant, [one for one in block if one.answer not in known])
        texts = [known[one.answer].text for one in block]
        judged = context.judge.judge(
            [
                Candidate(
                    one.prompt, text, references.get((one.user.name, one.prompt, one.copy), text)
                )
                for one, text in zip(block, texts, strict=True)
            ]
        )
        results.append(
            replace(
                _unjudged(context, entrant, one, known[one.answer]),
                rewards=dict(zip(context.objectives, rewards.tolist(), strict=True)),
                utility=float(context.shares(one.user) @ rewards),
                is_well_formed=judged.is_well_formed and judged.is_well_formed[place],
            )
            for place, (one, rewards) in enumerate(zip(block, judged.rewards, strict=True))
        )


def _missing(
    context: Context, entrant: Entrant, prompts: Sequence[str], results: Results
) -> list[Missing]:
    seed = context.task.seed
    missing: list[Missing] = []
    for user in context.task.users:
        for prompt in prompts:
            copies = [
                copy
                for copy in range(context.task.n_per_prompt)
                if ("answer", entrant.name, user.name, seed, prompt, copy) not in results
            ]
            if not copies:
                continue
            decision = entrant.decide(user, prompt)
            for copy in copies:
                answer_seed = context.answer_seed(user.name, prompt, copy)
                answer = _hash(context, entrant, decision, answer_seed)
                missing.append(Missing(user, prompt, copy, decision, answer))
    return missing


def _hash(context: Context, entrant: Entrant, decision: Decision, seed: int) -> str:
    is_ranked = decision.n_candidates > 1
    return answer_hash(
        library=entrant.fingerprint,
        plan=decision.plan.to_json(),
        read=entrant.library.format(decision.messages),
        seed=seed,
        max_tokens=context.task.max_tokens,
        n_candidates=decision.n_candidates,
        ranking=[dict(decision.ranking), dict(decision.learned_ranking)] if is_ranked else None,
    )


def _make(context: Context, entrant: Entrant, missing: Sequence[Missing]) -> dict[str, Answer]:
    """Each different answer once."""
    different = list({one.answer: one for one in missing}.values())
    if not different:
        return {}
    outputs = generate_all(
        entrant.library,
        [one.decision for one in different],
        sampling=context.sampling,
        seeds=[context.answer_seed(one.user.name, one.prompt, one.copy) for one in different],
    )
    tokens = [output.completion.tokens for output in outputs]
    below = context.base_log_probs([one.prompt for one in different], tokens)
    answers: dict[str, Answer] = {}
    for one, output, reference in zip(different, outputs, below, strict=True):
        n_tokens, is_one = len(output.completion.tokens), one.decision.n_candidates == 1
        log_ratio = float(sum(output.completion.log_probs)) - reference if is_one else None
        answers[one.answer] = Answer(output.text, n_tokens, output.lead, log_ratio)
    return answers


def _unjudged(context: Context, entrant: Entrant, one: Missing, answer: Answer) -> AnswerRow:
    decision, predicted = one.decision, one.decision.predicted_utility
    utility = None if predicted is None else (predicted.estimate, predicted.low, predicted.high)
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return AnswerRow(
        method=entrant.name,
        user=one.user.name,
        seed=context.task.seed,
        prompt=one.prompt,
        copy=one.copy,
        **vars(answer),
        rewards={},
        utility=0.0,
        shape=one.user.shape,
        cluster=one.user.cluster,
        taken=decision.method,
        n_passes=decision.n_passes,
        n_candidates=decision.n_candidates,
        reason=decision.reason,
        predicted=utility,
        coefficients=dict(decision.coefficients),
        judge=context.task.judge,
        versions=f"{packages}, library {entrant.fingerprint}",
        answer=one.answer,
    )


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
