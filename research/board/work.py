"""The work: what is missing is answered, judged and appended; a cell is never computed twice.

A job is one entrant's answers to one user with one seed, on one library. Jobs are done in this
process or shared by several, which open the library for themselves; one place writes the rows.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from palate import Decision, Known, Library, SamplingParams
from palate.core.files import hash_value
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed
from research.board.entrant import Entrant, Posed
from research.board.facts import capability_facts, cost_facts
from research.board.judges import Judgment
from research.board.loras import CONDITIONED, EVERYBODY
from research.board.methods import entrants
from research.board.parts import Parts
from research.board.prompts import Case, sampling_of
from research.board.rows import FACTS, ROWS, Fact, Row, append, load
from research.board.settings import BoardSettings

USERS = 4  # whose questions make one batch


@dataclass(frozen=True)
class Job:
    """One entrant's answers to one user."""

    method: str
    library: int
    user: str
    seed: int


@dataclass(eq=False)
class Board:
    """Settings, folder and the rows that are there."""

    settings: BoardSettings
    out: Path
    rows: list[Row] = field(default_factory=list[Row])
    facts: list[Fact] = field(default_factory=list[Fact])

    def __post_init__(self) -> None:
        """Read the rows of the folder."""
        self.rows = load(self.out / ROWS, Row)
        self.facts = load(self.out / FACTS, Fact)
        self._keys = {row.key for row in self.rows} | {fact.key for fact in self.facts}
        self._parts: dict[int, Parts] = {}

    def parts(self, number: int) -> Parts:
        """The parts of one library, opened once."""
        if number not in self._parts:
            self._parts[number] = Parts(self.settings, self.out, number)
        return self._parts[number]

    @property
    def sampling(self) -> SamplingParams:
        """How everybody answers: rivals' adapters are libraries that have no temperature."""
        return sampling_of(self.parts(0).library, self.settings)

    def has(self, key: tuple[str | int, ...]) -> bool:
        """Whether a row or fact of this key is there."""
        return key in self._keys

    def add(self, rows: Sequence[Row | Fact]) -> None:
        """Write what is not there yet."""
        fresh = [row for row in rows if row.key not in self._keys]
        self._keys |= {row.key for row in fresh}
        answers = [row for row in fresh if isinstance(row, Row)]
        measured = [row for row in fresh if isinstance(row, Fact)]
        self.rows += answers
        self.facts += measured
        for name, part in ((ROWS, answers), (FACTS, measured)):
            if part:
                append(self.out / name, part)


def listed(board: Board) -> list[Entrant]:
    """The entrants of the settings that the first library can serve, base first."""
    library = board.parts(0).library
    names = board.settings.methods
    every = entrants()
    wanted = [every[name] for name in names] if names else list(every.values())
    most = board.settings.most_comparisons
    return [one for one in wanted if one.n_comparisons <= most and one.needs(library)]


def libraries_of(board: Board, entrant: Entrant) -> range:
    """Places of the libraries that the entrant is measured on."""
    return range(len(board.settings.libraries) if entrant.is_trained else 1)


def users_of(board: Board, entrant: Entrant, number: int) -> list[str]:
    """Names of the users that the entrant answers."""
    names = [user.name for user in board.parts(number).users]
    has_own = entrant.adapters and entrant.adapters not in (EVERYBODY, CONDITIONED)
    return names[: board.settings.n_lora_users] if has_own else names


def missing_jobs(board: Board, some: Sequence[Entrant]) -> list[Job]:
    """What is to be done, one library after the other."""
    jobs: list[Job] = []
    for number in range(len(board.settings.libraries)):
        for entrant in some:
            if number not in libraries_of(board, entrant):
                continue
            jobs += [
                Job(entrant.name, number, user, seed)
                for user in users_of(board, entrant, number)
                for seed in board.settings.seeds
                if _missing_cases(board, Job(entrant.name, number, user, seed))
            ]
    return jobs


def _missing_cases(board: Board, job: Job) -> list[Case]:
    return [
        case
        for case in board.parts(job.library).cases(job.method)
        if not board.has((job.method, job.library, job.user, case.prompt.key, case.turns, job.seed))
    ]


def prepare(board: Board, some: Sequence[Entrant]) -> None:
    """Make what jobs read: earlier turns, comparisons, learned users, adapters, their facts."""
    talks = [case for one in some for case in board.parts(0).cases(one.name) if case.turns]
    if talks:
        board.parts(0).messages(talks[0])  # makes those of all
    for number in range(len(board.settings.libraries)):
        parts = board.parts(number)
        of_library = [one for one in some if number in libraries_of(board, one)]
        learned = [one for one in of_library if one.is_learned]
        for wording in sorted({one.wording for one in learned}):
            counts = {one.n_comparisons for one in learned if one.wording == wording}
            parts.learn(sorted(counts), wording=wording)
        for name in dict.fromkeys(one.adapters for one in of_library if one.adapters):
            adapters = parts.adapters(name)
            board.add([Fact("adapter_seconds", name, number, "", adapters.seconds_each, "s")])


def run_jobs(board: Board, jobs: Sequence[Job], *, n_workers: int = 1) -> None:
    """Answer and judge, and append the rows."""
    with progress_of("answers, jobs") as report:
        done, groups = 0, grouped(jobs)
        for group, rows in _results(board, groups, n_workers):
            board.add(rows)
            done += len(group)
            report(done, len(jobs))


def grouped(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs of one method and seed, a few users at a time: full batches sample twice as fast."""
    together: dict[tuple[str, int, int], list[Job]] = {}
    for job in jobs:
        together.setdefault((job.method, job.library, job.seed), []).append(job)
    starts = ((some, start) for some in together.values() for start in range(0, len(some), USERS))
    return [some[start : start + USERS] for some, start in starts]


def _results(
    board: Board, groups: Sequence[list[Job]], n_workers: int
) -> Iterator[tuple[list[Job], list[Row]]]:
    if n_workers == 1 or len(groups) < 2:
        for group in groups:
            yield group, answer(board, group)
        return
    initargs = (board.settings, board.out)
    with ProcessPoolExecutor(
        n_workers, mp_context=get_context("spawn"), initializer=_begin, initargs=initargs
    ) as pool:
        futures = {pool.submit(_do, group): group for group in groups}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_BOARDS: list[Board] = []  # one, where this process is one of several


def _begin(settings: BoardSettings, out: Path) -> None:
    os.environ["TTY_COMPATIBLE"] = "0"  # plain lines of progress: several bars would overwrite
    torch.set_num_threads(1)
    _BOARDS[:] = [Board(settings, out)]


def _do(group: list[Job]) -> list[Row]:
    (board,) = _BOARDS
    rows = answer(board, group)
    board.rows += rows  # in memory: equal answers are not made twice in this process either
    return rows


@dataclass(frozen=True, eq=False)
class _Question:
    """One missing row."""

    job: Job
    case: Case
    posed: Posed
    decision: Decision
    seed: int
    key: str  # hash of everything that determines the text


def answer(board: Board, group: Sequence[Job]) -> list[Row]:
    """The missing rows of jobs of one library, sampled together and judged."""
    questions = [one for job in group for one in _questions(board, job)]
    if not questions:
        return []
    texts = _texts(board, questions)
    judged = board.parts(0).judges.judge(
        [one.case.prompt.text for one in questions],
        [texts[one.key]["text"] for one in questions],
    )
    return [
        _row(board, one, judgment, **texts[one.key])
        for one, judgment in zip(questions, judged, strict=True)
    ]


def _questions(board: Board, job: Job) -> list[_Question]:
    cases = _missing_cases(board, job)
    if not cases:
        return []
    parts, first = board.parts(job.library), board.parts(0)  # whose earlier turns are everybody's
    user = parts.user(job.user)
    posed = entrants()[job.method].pose(parts, user)
    known = Known(**posed.known)
    seed = derive_seed(job.seed, "board", user.name)
    questions: list[_Question] = []
    for case in cases:
        decision = posed.library.decide(
            first.messages(case), known, method=posed.method, n_candidates=posed.n_candidates
        )
        key = _answer_key(board, posed, decision, seed)
        questions.append(_Question(job, case, posed, decision, seed, key))
    return questions


def _answer_key(board: Board, posed: Posed, decision: Decision, seed: int) -> str:
    library, is_ranked = posed.library, decision.n_candidates > 1
    experts = [record.key for record in library.manifest.experts]
    facts: dict[str, Any] = {
        "base": library.manifest.base.fingerprint,
        "experts": experts,
        "plan": decision.plan.to_json(),
        "read": library.format(decision.messages),
        "sampling": vars(board.sampling),
        "seed": seed,
        "n": decision.n_candidates,
        "ranking": [dict(decision.ranking), dict(decision.learned_ranking)] if is_ranked else None,
    }
    return hash_value(facts)[:16]


def _texts(board: Board, questions: Sequence[_Question]) -> dict[str, dict[str, Any]]:
    """Each different answer once: its text, length and log-probability by its hash."""
    asked = {one.key: one for one in questions}
    texts: dict[str, dict[str, Any]] = {
        row.answer: {"text": row.text, "n_tokens": row.n_tokens, "log_prob": row.log_prob}
        for row in board.rows
        if row.answer in asked
    }
    by_library: dict[Library, list[_Question]] = {}
    for one in asked.values():
        if one.key not in texts:
            by_library.setdefault(one.posed.library, []).append(one)
    for library, some in by_library.items():
        outputs = library.execute(
            [one.decision for one in some],
            seeds=[one.seed for one in some],
            sampling=board.sampling,
        )
        for one, output in zip(some, outputs, strict=True):
            texts[one.key] = {
                "text": output.text.strip(),
                "n_tokens": len(output.completion.tokens),
                "log_prob": round(float(sum(output.completion.log_probs)), 4),
            }
    return texts


def _row(board: Board, question: _Question, judgment: Judgment, **text: Any) -> Row:
    job, library, decision = question.job, question.posed.library, question.decision
    tokenizer = library.base.tokenizer
    read = library.format(decision.messages)
    return Row(
        method=job.method,
        library=job.library,
        user=job.user,
        shape=board.parts(job.library).user(job.user).shape,
        prompt=question.case.prompt.key,
        turns=question.case.turns,
        seed=job.seed,
        answer=question.key,
        n_prompt_tokens=len(tokenizer(read, add_special_tokens=False)["input_ids"]),
        n_passes=decision.n_passes,
        n_candidates=decision.n_candidates,
        taken=decision.method,
        reason=decision.reason,
        coefficients={name: round(value, 6) for name, value in decision.coefficients.items()},
        **text,
        **vars(judgment),
    )


def measure_facts(board: Board, some: Sequence[Entrant]) -> None:
    """Bytes, seconds, prompt tokens and what is kept of the base's capability, once each."""
    with progress_of("facts, methods") as report:
        for done, entrant in enumerate(some, start=1):
            for number in libraries_of(board, entrant):
                parts = board.parts(number)
                names = users_of(board, entrant, number)
                board.add(cost_facts(parts, entrant, names, has=board.has))
                few = names[: board.settings.n_capability_users]
                board.add(capability_facts(parts, entrant, few, has=board.has))
            report(done, len(some))


def run_board(board: Board, some: Sequence[Entrant], *, n_workers: int = 1) -> None:
    """All rows and facts of these entrants, made where they are missing."""
    torch.set_num_threads(n_workers)  # until the processes begin, this one has their cores
    jobs = sorted(missing_jobs(board, some), key=partial(_build_of, entrants()))
    begun = {job.method for job in jobs}
    prepare(board, [one for one in some if one.name in begun or _lacks_facts(board, one)])
    run_jobs(board, jobs, n_workers=n_workers)
    measure_facts(board, some)


def _lacks_facts(board: Board, entrant: Entrant) -> bool:
    return not all(
        board.has(("bytes_per_user", entrant.name, number, ""))
        for number in libraries_of(board, entrant)
    )


def _build_of(known: Mapping[str, Entrant], job: Job) -> tuple[int, str]:
    """Jobs of one library of adapters stand together, so it is opened once."""
    return (job.library, known[job.method].adapters)
