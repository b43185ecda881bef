"""The work of an evaluation, cut into jobs: build a part, answer in some ways, time the ways.

build     one part of one seed's libraries; the library goes before the others
answer    some ways on a block of prompts, judged, with the ways' facts; after the builds of the
seed, and after the base's answers, with which some judges compare
time      the speed of all ways, when nothing else runs any more
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from palate.evaluate.rows import Results, Row
from palate.evaluate.suite import WORLD, Suite
from palate.recipes.evaluate_crew import Job
from palate.recipes.evaluate_facts import SLOWNESS, STORED, is_timed, speed_facts, way_facts
from palate.recipes.evaluate_fill import BASE, fill_way
from palate.recipes.evaluate_judges import suite_judge
from palate.recipes.evaluate_kit import Kit, suite_prompts
from palate.recipes.evaluate_world import (
    LIBRARY,
    Libraries,
    build_part,
    world_libraries,
    world_parts,
    world_people,
)

BLOCK = 192  # answers of a way that one job makes, and that an interruption can cost
_BUILD_COST = 15
_CHOSEN = ("best-expert", "portfolio-", "bespoke")  # share policies measured beforehand


@dataclass(frozen=True)
class Order:
    """What a worker is told.

    Attributes:
        seed: Of the library and of the draws.
        part: To be built, or empty.
        ways: To be answered or timed.
        prompts: To be answered; none is for timing.
        with_facts: Measure the ways' facts too.
        rows: What is there already of the seed.
    """

    seed: int
    part: str = ""
    ways: tuple[str, ...] = ()
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
    _kits: dict[int, Kit] = field(default_factory=dict)

    def __call__(self, order: Order) -> list[Row]:
        """The rows that the order asks for and that are not there.

        Raises:
            InvalidInputError: a way is unknown, or the library lacks what it needs.
        """
        if order.part:
            build_part(self.suite, order.part, seed=order.seed, work=_work(self.out, order.seed))
            return []
        kit = self._kit(order.seed)
        results = Results(None, list(order.rows))
        if not order.prompts:
            return [fact for name in order.ways for fact in speed_facts(kit, name)]
        judge = suite_judge(self.suite, kit)
        for name in order.ways:
            fill_way(kit, name, order.prompts, judge=judge, results=results)
            if order.with_facts and not _has_facts(results, name, order.seed):
                results.append(way_facts(kit, name))
        return results.rows[len(order.rows) :]

    def _kit(self, seed: int) -> Kit:
        if seed not in self._kits:
            libraries = _libraries(self.suite, _work(self.out, seed))
            self._kits[seed] = Kit(self.suite, seed=seed, libraries=libraries)
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
    prompts, people = suite_prompts(suite), suite.people or world_people()
    size = max(1, BLOCK // (len(people) * suite.n_per_prompt))
    answers = [
        job
        for seed in suite.seeds
        for at in range(0, len(prompts), size)
        for job in _answering(suite, seed, prompts[at : at + size], at, results)
    ]
    first = suite.seeds[0]
    timed = tuple(
        way
        for way in suite.ways
        if is_timed(way) and ("fact", SLOWNESS, way, "", first) not in results
    )
    seeds = {job.order.seed for job in answers} | ({first} if timed else set())
    builds = _builds(suite, [seed for seed in suite.seeds if seed in seeds])
    jobs = [*builds, *sorted(answers, key=lambda job: _rank(job.order))]
    if timed:
        names = frozenset(job.name for job in jobs)
        jobs.append(Job("speed", Order(first, ways=timed), names))
    return jobs


def cost_of(job: Job) -> int:
    """How long the job takes, in ways of the small world; roughly, for estimates."""
    return _BUILD_COST if job.order.part else len(job.order.ways)


def brief(job: Job, results: Results) -> Order:
    """The order with the rows that are there by now."""
    order: Order = job.order
    rows = tuple(row for row in results.rows if row.seed == order.seed) if order.ways else ()
    return Order(order.seed, order.part, order.ways, order.prompts, order.with_facts, rows)


def _builds(suite: Suite, seeds: Sequence[int]) -> list[Job]:
    if suite.library != WORLD:
        return []
    return [
        Job(
            f"seed {seed}, {part}",
            Order(seed, part=part),
            frozenset() if part == LIBRARY else frozenset({f"seed {seed}, {LIBRARY}"}),
        )
        for part in world_parts(suite)
        for seed in seeds
    ]


def _answering(
    suite: Suite, seed: int, prompts: tuple[str, ...], at: int, results: Results
) -> list[Job]:
    """One job for the base, one for all ways that choose among measured policies, one for each."""
    parts = world_parts(suite) if suite.library == WORLD else ()
    builds = {f"seed {seed}, {part}" for part in parts}
    groups: dict[str, list[str]] = {}
    for way in (BASE, *(name for name in suite.ways if name != BASE)):
        lacks_facts = at == 0 and not _has_facts(results, way, seed)
        if lacks_facts or _lacks_answers(suite, seed, way, prompts, results):
            groups.setdefault("portfolios" if way.startswith(_CHOSEN) else way, []).append(way)
    base = f"seed {seed}, {BASE}, from prompt {at}"
    return [
        Job(
            f"seed {seed}, {name}, from prompt {at}",
            Order(seed, ways=tuple(some), prompts=prompts, with_facts=at == 0),
            frozenset(builds if name == BASE else {*builds, base}),
        )
        for name, some in groups.items()
    ]


def _lacks_answers(
    suite: Suite, seed: int, way: str, prompts: Sequence[str], results: Results
) -> bool:
    return any(
        ("answer", way, person.name, seed, prompt, copy) not in results
        for person in suite.people or world_people()
        for prompt in prompts
        for copy in range(suite.n_per_prompt)
    )


def _rank(order: Order) -> tuple[bool, bool, bool]:
    """Bases first, then what takes longest."""
    ways = order.ways
    return (ways != (BASE,), not ways[0].startswith(_CHOSEN), ways != ("implicit-soup",))


def _has_facts(results: Results, way: str, seed: int) -> bool:
    return ("fact", STORED, way, "", seed) in results


def _work(out: Path, seed: int) -> Path:
    return out / f"seed{seed}"


def _libraries(suite: Suite, work: Path) -> Libraries:
    if suite.library == WORLD:
        return world_libraries(suite, work=work)
    bespoke = Path(suite.bespoke) if suite.bespoke is not None else None
    return Libraries(Path(suite.library), bespoke, None)
