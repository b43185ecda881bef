"""`palate evaluate`: people x prompts x ways x seeds, judged, compared, and reported.

Everything that is measured goes into `results.jsonl`, row by row; the report is computed from that
file and `suite.json` alone. An interrupted run goes on after the last whole row. Several processes
can share the work; the rows that they make are written by one.
"""

from dataclasses import dataclass
from functools import partial
from os import cpu_count
from pathlib import Path
from time import monotonic
from typing import Any

from palate.core.errors import InvalidInputError
from palate.core.files import read_json, write_json
from palate.core.types import Preference
from palate.evaluate.rows import RESULTS, Results, Row, open_results
from palate.evaluate.suite import WORLD, Suite
from palate.recipes.evaluate_crew import Job, run_jobs
from palate.recipes.evaluate_report import Evaluation, write_report
from palate.recipes.evaluate_ways import way_named
from palate.recipes.evaluate_work import Worker, brief, cost_of, jobs_of, worker_beside
from palate.recipes.evaluate_world import world_people
from palate.recipes.progress import progress_of

SUITE = "suite.json"
_MAY_GROW = ("ways", "seeds", "n_prompts", "n_per_prompt")  # rows of less stay right


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A finished evaluation.

    Attributes:
        results: All rows.
        evaluation: What they say together.
        seconds: Wall clock of this run.
    """

    results: Results
    evaluation: Evaluation
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain data."""
        return {"seconds": round(self.seconds, 1), **self.evaluation.to_json()}


def evaluate(suite: Suite, *, out: Path, n_workers: int | None = None) -> Evaluated:
    """Build what is missing, answer, judge, compare, and write the report into `out`.

    Args:
        suite: What is compared.
        out: Folder of results, libraries and report.
        n_workers: Processes that share the work; by default one per core for the small world, whose
            model is tiny, and one for a library of your own. What comes out is the same.

    Raises:
        InvalidInputError: the folder holds results of another suite, a way is unknown, or the
            library lacks what a way needs.
        FormatError: the results file is of another version.
    """
    start = monotonic()
    for name in suite.ways:
        way_named(name)
    content = _require_same_suite(suite, out)
    results = open_results(out / RESULTS)
    jobs = jobs_of(suite, results)
    n_done, n_all = 0, sum(map(cost_of, jobs))
    with progress_of("evaluation, work") as report:

        def collect(job: Job, rows: list[Row]) -> None:
            nonlocal n_done
            n_done += cost_of(job)
            results.append(rows)
            report(n_done, n_all)

        n = n_workers or _default_workers(suite)
        run_jobs(
            jobs,
            begin=partial(Worker if n == 1 else worker_beside, suite, out),
            brief=lambda job: brief(job, results),
            collect=collect,
            n_workers=n,
        )
    evaluation = write_report(content, results, out=out)
    return Evaluated(results, evaluation, monotonic() - start)


def _default_workers(suite: Suite) -> int:
    return (cpu_count() or 1) if suite.library == WORLD else 1


def _require_same_suite(suite: Suite, out: Path) -> dict[str, Any]:
    """The suite as it is kept beside its results; two are not mixed."""
    people = suite.people or world_people()
    for person in people:
        Preference.from_mapping(person.preference, objectives=tuple(person.preference))
    content = suite.model_dump(mode="json")
    content["people"] = [person.model_dump(mode="json") for person in people]
    path = out / SUITE
    if path.exists():
        found = read_json(path, what="suite")
        for key, value in content.items():
            if key not in _MAY_GROW and found.get(key) != value:
                raise InvalidInputError(
                    f"The folder {str(out)!r} holds results of a suite with another {key!r} "
                    f"({str(found.get(key))[:60]}); give a new folder."
                )
    write_json(path, content)
    return content
