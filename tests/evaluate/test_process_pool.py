"""A process pool does all jobs, in an order that their needs allow, and tells what failed."""

import os

import pytest

from palate.core.errors import FormatError, PalateError
from palate.evaluate.process_pool import Job, run_jobs
from pool_jobs import begin


def job(name, *, needs=(), kind="plain", value=None):
    return Job(name, (kind, value if value is not None else name), frozenset(needs))


JOBS = [
    job("library"),
    job("bespoke", needs=["library"]),
    job("controller", needs=["library"]),
    job("answers", needs=["bespoke", "controller"]),
    job("more", needs=["library"]),
]


def done(jobs, *, n_workers):
    found = {}
    briefed = []

    def brief(one):
        assert one.needs & {j.name for j in jobs} <= set(found)  # what it needs was collected
        briefed.append(one.name)
        return one.order

    def collect(one, outcome):
        found[one.name] = outcome

    run_jobs(jobs, begin=begin, brief=brief, collect=collect, n_workers=n_workers)
    return found, briefed


@pytest.mark.parametrize("n_workers", [1, 2])
def test_every_job_is_done_once_and_after_what_it_needs(n_workers):
    found, briefed = done(JOBS, n_workers=n_workers)
    assert {name: outcome[0] for name, outcome in found.items()} == {j.name: j.name for j in JOBS}
    assert sorted(briefed) == sorted(j.name for j in JOBS)
    pids = {outcome[1] for outcome in found.values()}
    assert (os.getpid() in pids) == (n_workers == 1)


def test_two_jobs_run_at_the_same_time(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    jobs = [
        job("one", kind="meet", value=(first, second)),
        job("two", kind="meet", value=(second, first)),
    ]
    found, _ = done(jobs, n_workers=2)
    assert found == {"one": True, "two": True}


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_job_that_fails_ends_the_others_with_its_own_sentence(n_workers):
    jobs = [*JOBS, job("wrong", kind="fail", needs=["answers"]), job("late", needs=["wrong"])]
    with pytest.raises(FormatError, match=r"^The file is of another kind, so give a right one\.$"):
        done(jobs, n_workers=n_workers)


def test_a_mistake_of_ours_in_a_process_is_named(capfd):
    with pytest.raises(PalateError, match="failed with ZeroDivisionError"):
        done([job("broken", kind="break", value=0), job("fine")], n_workers=2)
    assert "Traceback" in capfd.readouterr().err


def test_a_process_that_ends_by_itself_is_named_with_its_job():
    with pytest.raises(PalateError, match=r"'dead' ended by itself \(exit code 7\)"):
        done([job("dead", kind="die"), job("fine")], n_workers=2)
