"""The work of an evaluation, cut into jobs: build a part, answer by a method, time the methods.

build     one part of one seed's libraries; the library goes before the others
answer    one method on a block of prompts, judged, with the method's facts; after the builds of the
          seed, and after the base's answers, with which some judges compare
time      the speed of all methods, when nothing else runs any more
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from palate.evaluate.context import Context, open_context, suite_prompts, suite_users
from palate.evaluate.entrant_name import BASE
from palate.evaluate.facts import (
    IMPLICIT,
    SLOWNESS,
    STORED,
    entrant_facts,
    is_timed,
    speed_facts,
)
from palate.evaluate.fill import fill_entrant
from palate.evaluate.judges import suite_judge
from palate.evaluate.process_pool import Job
from palate.evaluate.rows import Results, Row
from palate.evaluate.suite import WORLD, Suite
from research.world.board import (
    Libraries,
    build_part,
    world_libraries,
    world_parts,
)

BLOCK = 192  # answers of a method that one job makes, and that an interruption can cost
_BUILD_COST = 15


@dataclass(frozen=True)
class Order:
    """What a worker is told.

    Attributes:
        seed: Of the library and of the draws.
        part: To be built, or empty.
        methods: To be answered or timed.
        prompts: To be answered; none is for timing.
        with_facts: Measure the methods' facts too.
        rows: What is there already of the seed.
    """

    seed: int
    part: str = ""
    methods: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    with_facts: bool = False
    rows: tuple[Row, ...] = ()


@dataclass(eq=False)
class Worker:
    """Carries out orders; keeps what it has opened.

    Attributes:
        suite: What is compared.
        out: Folder of the evaluation.
    """

    suite: Suite
    out: Path
    _kits: dict[int, Context] = field(default_factory=dict[int, Context])

    def __call__(self, order: Order) -> list[Row]:
        """The rows that the order names and that are not there.

        Raises:
            InvalidInputError: a method is unknown, or the library lacks what it needs.
        """
        if order.part:
            build_part(self.suite, order.part, seed=order.seed, work=_work(self.out, order.seed))
            return []
        context = self._context(order.seed)
        if not order.prompts:
            return [fact for name in order.methods for fact in speed_facts(context, name)]
        results = Results(None, list(order.rows))
        judge = suite_judge(self.suite, context.library)
        for name in order.methods:
            fill_entrant(context, name, order.prompts, judge=judge, results=results)
            if order.with_facts and not _has_facts(results, name, order.seed):
                results.append(entrant_facts(context, name))
        return results.rows[len(order.rows) :]

    def _context(self, seed: int) -> Context:
        if seed not in self._kits:
            folders = _libraries(self.suite, _work(self.out, seed))
            self._kits[seed] = open_context(self.suite, folders, seed=seed)
        return self._kits[seed]


def worker_beside(suite: Suite, out: Path) -> Worker:
    """A worker in a process of its own beside others, with one thread."""
    torch.set_num_threads(1)
    return Worker(suite, out)


def jobs_of(suite: Suite, results: Results) -> list[Job]:
    """What is still to be done, in the order of preference: long things first.

    Raises:
        InvalidInputError: the prompts cannot be read.
    """
    prompts, users = suite_prompts(suite), suite_users(suite)
    size = max(1, BLOCK // (len(users) * suite.n_per_prompt))
    answers = [
        job
        for seed in suite.seeds
        for at in range(0, len(prompts), size)
        for job in _answering(suite, seed, prompts[at : at + size], at, results)
    ]
    first = suite.seeds[0]
    timed = tuple(
        method
        for method in suite.methods
        if is_timed(method) and ("fact", SLOWNESS, method, "", first) not in results
    )
    seeds = {job.order.seed for job in answers} | ({first} if timed else set())
    builds = _builds(suite, [seed for seed in suite.seeds if seed in seeds])
    jobs = [*builds, *sorted(answers, key=lambda job: _rank(job.order))]
    if timed:
        names = frozenset(job.name for job in jobs)
        jobs.append(Job("speed", Order(first, methods=timed), names))
    return jobs


def cost_of(job: Job) -> int:
    """How long the job takes, in methods of the small world; roughly, for estimates."""
    return _BUILD_COST if job.order.part else len(job.order.methods)


def brief(job: Job, results: Results) -> Order:
    """The order with the rows that are there by now."""
    order: Order = job.order
    rows = tuple(row for row in results.rows if row.seed == order.seed) if order.methods else ()
    return Order(order.seed, order.part, order.methods, order.prompts, order.with_facts, rows)


def _builds(suite: Suite, seeds: Sequence[int]) -> list[Job]:
    if suite.library != WORLD:
        return []
    parts = world_parts(suite)
    return [
        Job(
            f"seed {seed}, {part}",
            Order(seed, part=part),
            frozenset(f"seed {seed}, {earlier}" for earlier in needs),
        )
        for part, needs in parts.items()
        for seed in seeds
    ]


def _answering(
    suite: Suite, seed: int, prompts: tuple[str, ...], at: int, results: Results
) -> list[Job]:
    """One job for every method that lacks answers or facts; the base's goes before the others."""
    parts = world_parts(suite) if suite.library == WORLD else {}
    builds = {f"seed {seed}, {part}" for part in parts}
    base = f"seed {seed}, {BASE}, from prompt {at}"
    jobs: list[Job] = []
    for method in (BASE, *(name for name in suite.methods if name != BASE)):
        lacks_facts = at == 0 and not _has_facts(results, method, seed)
        if lacks_facts or _lacks_answers(suite, seed, method, prompts, results):
            order = Order(seed, methods=(method,), prompts=prompts, with_facts=at == 0)
            needs = builds if method == BASE else {*builds, base}
            name = f"seed {seed}, {method}, from prompt {at}"
            jobs.append(Job(name, order, frozenset(needs)))
    done = {job.name for job in jobs}
    return [
        Job(job.name, job.order, frozenset(n for n in job.needs if n in done or n in builds))
        for job in jobs
    ]


def _lacks_answers(
    suite: Suite, seed: int, method: str, prompts: Sequence[str], results: Results
) -> bool:
    return any(
        ("answer", method, user.name, seed, prompt, copy) not in results
        for user in suite_users(suite)
        for prompt in prompts
        for copy in range(suite.n_per_prompt)
    )


def _rank(order: Order) -> tuple[bool, bool]:
    """Bases first, then what takes longest."""
    return (order.methods != (BASE,), order.methods != (IMPLICIT,))


def _has_facts(results: Results, method: str, seed: int) -> bool:
    return ("fact", STORED, method, "", seed) in results


def _work(out: Path, seed: int) -> Path:
    return out / f"seed{seed}"


def _libraries(suite: Suite, work: Path) -> Libraries:
    if suite.library == WORLD:
        return world_libraries(suite, work=work)
    bespoke = Path(suite.bespoke) if suite.bespoke is not None else None
    return Libraries(Path(suite.library), bespoke, None)
