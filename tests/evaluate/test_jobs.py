"""The work of an evaluation is cut into jobs that wait for what they need, and is done once."""

from dataclasses import replace

from palate.evaluate.context import suite_prompts
from palate.evaluate.facts import SLOWNESS, STORED, is_timed
from palate.evaluate.jobs import BLOCK, brief, jobs_of
from palate.evaluate.rows import AnswerRow, FactRow, Results
from palate.evaluate.suite import Suite
from palate.evaluate.world import world_users

METHODS = ("base", "soup", "portfolio", "soup@5", "bespoke", "conditioned", "mixture")
SUITE = Suite(methods=METHODS, seeds=(4, 7), n_prompts=3)


def finished(suite):
    """All rows of a suite, made up."""
    rows = [
        AnswerRow(method, user.name, seed, prompt, copy, "text", {}, 0.0)
        for method in suite.methods
        for seed in suite.seeds
        for user in world_users()
        for prompt in suite_prompts(suite)
        for copy in range(suite.n_per_prompt)
    ]
    facts = [FactRow(STORED, method, seed, 1.0) for method in suite.methods for seed in suite.seeds]
    first = suite.seeds[0]
    timed = [FactRow(SLOWNESS, m, first, 1.0) for m in suite.methods if is_timed(m)]
    return [*rows, *facts, *timed]


def test_parts_wait_for_the_library_and_answers_for_all_parts_and_the_base():
    jobs = {job.name: job for job in jobs_of(SUITE, Results(None))}
    parts = {f"seed 4, {part}" for part in ("library", "bespoke", "conditioned", "controller")}
    assert jobs["seed 4, library"].needs == frozenset()
    assert jobs["seed 4, bespoke"].needs == {"seed 4, library"}
    assert jobs["seed 4, base, from prompt 0"].needs == parts
    assert jobs["seed 4, soup, from prompt 0"].needs == {*parts, "seed 4, base, from prompt 0"}
    assert jobs["speed"].needs == set(jobs) - {"speed"}


def test_what_is_needed_stands_before_what_needs_it():
    seen = set()
    for job in jobs_of(SUITE, Results(None)):
        assert job.needs <= seen
        seen.add(job.name)


def test_every_answer_is_in_exactly_one_job_and_no_job_is_too_long():
    suite = SUITE.model_copy(update={"n_prompts": 60})
    found = []
    for job in jobs_of(suite, Results(None)):
        order = job.order
        if order.prompts:
            found += [(m, order.seed, p) for m in order.methods for p in order.prompts]
            assert len(order.prompts) * len(world_users()) <= BLOCK
    assert len(found) == len(set(found)) == len(METHODS) * 2 * 60
    assert (
        sum(
            job.order.with_facts and "soup" in job.order.methods
            for job in jobs_of(suite, Results(None))
        )
        == 2
    )


def test_every_method_has_a_job_of_its_own():
    jobs = [job.order.methods for job in jobs_of(SUITE, Results(None)) if job.order.prompts]
    assert {method for methods in jobs for method in methods} == set(METHODS)
    assert all(len(methods) == 1 for methods in jobs)


def test_nothing_is_left_to_do_when_all_rows_are_there():
    assert jobs_of(SUITE, Results(None, finished(SUITE))) == []


def test_only_what_is_missing_is_done_and_only_its_seed_is_built():
    rows = finished(SUITE)
    lost = next(r for r in rows if isinstance(r, AnswerRow) and (r.method, r.seed) == ("soup", 7))
    jobs = jobs_of(SUITE, Results(None, [row for row in rows if row != lost]))
    answering = [job.order for job in jobs if job.order.prompts]
    assert [(order.seed, order.methods) for order in answering] == [(7, ("soup",))]
    assert {job.order.seed for job in jobs} == {7}


def test_a_brief_carries_the_rows_of_its_seed():
    rows = finished(SUITE)
    job = next(job for job in jobs_of(SUITE, Results(None)) if job.order.methods == ("soup",))
    order = brief(job, Results(None, rows))
    assert order.rows == tuple(row for row in rows if row.seed == job.order.seed)
    assert replace(order, rows=()) == job.order
    build = next(job for job in jobs_of(SUITE, Results(None)) if job.order.part)
    assert brief(build, Results(None, rows)).rows == ()
