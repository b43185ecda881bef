"""The work of an evaluation is cut into jobs, and is done once, by one process or several."""

import os
from functools import partial

import pytest

from palate.core.errors import FormatError, PalateError
from palate.evaluate.facts import STORED
from palate.evaluate.rows import AnswerRow, FactRow, Results
from palate.evaluate.suite import Suite, UserSettings
from palate.evaluate.work import BLOCK, Job, Worker, jobs_of, run_jobs

USERS = tuple(UserSettings(name=f"user {k}", preference={"x": 1.0}) for k in range(24))
METHODS = ("base", "auto", "soup", "implicit-soup", "soup@5")
PROMPTS = tuple(f"prompt {k}" for k in range(60))
SUITE = Suite(users=USERS, prompts=PROMPTS, methods=METHODS, seeds=(4, 7))


def finished():
    """All rows of the suite, made up."""
    rows = [
        AnswerRow(method, user.name, seed, prompt, 0, "text", {}, 0.0)
        for method in METHODS
        for seed in SUITE.seeds
        for user in USERS
        for prompt in PROMPTS
    ]
    return [*rows, *(FactRow(STORED, m, seed, 1.0) for m in METHODS for seed in SUITE.seeds)]


def test_bases_go_first_then_what_takes_longest_and_last_what_reuses_answers():
    methods = [job.method for job in jobs_of(SUITE, PROMPTS, Results(None))]
    order = list(dict.fromkeys(methods))
    assert order[:2] == ["base", "implicit-soup"]
    assert order[-1] == "auto"
    assert methods.count("base") == methods.count("auto")
    assert methods[: methods.count("base")] == ["base"] * methods.count("base")


def test_every_answer_is_in_exactly_one_job_and_no_job_is_too_long():
    jobs = jobs_of(SUITE, PROMPTS, Results(None))
    cells = [(job.method, job.seed, prompt) for job in jobs for prompt in job.prompts]
    assert len(cells) == len(set(cells)) == len(METHODS) * 2 * 60
    assert all(len(job.prompts) * len(USERS) <= BLOCK for job in jobs)
    assert sum(job.with_facts and job.method == "soup" for job in jobs) == 2  # once a seed


def test_nothing_is_left_to_do_when_all_rows_are_there():
    assert jobs_of(SUITE, PROMPTS, Results(None, finished())) == []


def test_only_what_is_missing_is_done():
    rows = finished()
    lost = next(r for r in rows if isinstance(r, AnswerRow) and (r.method, r.seed) == ("soup", 7))
    (job,) = jobs_of(SUITE, PROMPTS, Results(None, [row for row in rows if row != lost]))
    assert (job.seed, job.method) == (7, "soup")
    assert lost.prompt in job.prompts
    fact = next(row for row in rows if isinstance(row, FactRow))
    (job,) = jobs_of(SUITE, PROMPTS, Results(None, [row for row in rows if row != fact]))
    assert (job.method, job.with_facts) == (fact.method, True)


class Recorder(Worker):
    """Instead of answering gives a fact that names the process and what was there already."""

    def __call__(self, job, rows):
        if job.method == "fail":
            raise FormatError("The file is of another kind, so give a right one.")
        if job.method == "die":
            os._exit(7)
        there = len([row for row in rows if row.method == "base"])
        return [FactRow("done", job.method, job.seed, os.getpid(), detail={"bases": there})]


def no_context(seed):
    raise NotImplementedError


def done(methods, *, n_workers):
    results = Results(None)
    jobs = [Job(seed, method, ("p",), with_facts=False) for method in methods for seed in (0, 1)]
    run_jobs(jobs, Recorder(partial(no_context)), results=results, n_workers=n_workers)
    return results.facts


@pytest.mark.parametrize("n_workers", [1, 2])
def test_every_job_is_done_once_after_the_bases_and_with_their_rows(n_workers):
    facts = done(["base", "soup", "mod"], n_workers=n_workers)
    assert len(facts) == 6
    assert {fact.method for fact in facts[:2]} == {"base"}
    assert all(fact.detail["bases"] == 1 for fact in facts[2:])  # of their seed
    assert (os.getpid() in {fact.value for fact in facts}) == (n_workers == 1)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_job_that_fails_ends_the_others_with_its_own_sentence(n_workers):
    with pytest.raises(FormatError, match=r"^The file is of another kind, so give a right one\.$"):
        done(["base", "fail", "late"], n_workers=n_workers)


def test_a_process_that_ends_by_itself_is_said():
    with pytest.raises(PalateError, match="A process ended by itself"):
        done(["base", "die"], n_workers=2)
