"""`palate evaluate`: users x prompts x methods x seeds, judged, compared, and reported.

Everything that is measured goes into `results.jsonl`, row by row; the report is computed from that
file and `suite.json` alone. An interrupted run goes on after the last whole row. Several processes
can share the work; the rows that they make are written by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import cpu_count
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from palate.core.decision import Method
from palate.core.errors import InvalidInputError
from palate.core.files import read_json, write_json
from palate.core.progress import progress_of
from palate.core.types import Preference
from palate.evaluate.context import Context, Task, suite_users
from palate.evaluate.entrant_name import BASE
from palate.evaluate.entrants import fingerprint_of, require_methods
from palate.evaluate.facts import entrant_facts
from palate.evaluate.fill import fill_entrant
from palate.evaluate.jobs import Worker, brief, cost_of, jobs_of, worker_beside
from palate.evaluate.judges import RewardJudge, SuiteJudge
from palate.evaluate.process_pool import Job, run_jobs
from palate.evaluate.report_files import Evaluation, write_report
from palate.evaluate.rows import RESULTS, Results, Row, open_results
from palate.evaluate.suite import WORLD, Suite, UserSettings
from research.world.board import Libraries
from palate.library.library import Library
from palate.library.rewards import held_back_rewards
from palate.rewards.functions import identity_of

SUITE = "suite.json"
DEFAULT_METHODS = ("base", "prompt", "prompted-soup", "auto")
_MAY_GROW = (  # rows of less stay right
    "own_methods",
    "methods",
    "seeds",
    "n_prompts",
    "n_per_prompt",
)


class NamedUser(Protocol):
    """A user as Python code has one; `instruction` and `shape` may be missing."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    @property
    def preference(self) -> Mapping[str, float]:
        """Shares by objective."""
        ...


Users = Mapping[str, Mapping[str, float]] | Sequence[NamedUser]


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
        InvalidInputError: the folder holds results of another suite, a method is unknown, or the
            library lacks what a method needs.
        FormatError: the results file is of another version.
    """
    start = monotonic()
    require_methods(suite.methods)
    content = suite.model_dump(mode="json")
    content["users"] = [user.model_dump(mode="json") for user in suite_users(suite)]
    _require_preferences(suite_users(suite))
    results = open_results(out / RESULTS)
    _keep_suite(content, out)
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


def evaluate_library(  # noqa: PLR0913  the face's signature: one call says everything
    library: Library,
    users: Users,
    prompts: Sequence[str],
    *,
    methods: Sequence[str | Method] = DEFAULT_METHODS,
    output_dir: str | Path,
    judge: SuiteJudge | None = None,
    seed: int = 0,
    max_tokens: int = 80,
) -> Evaluated:
    """Compare methods of an opened library, in this process, and write the report.

    Args:
        library: Decides and answers.
        users: Name to preference; or objects with a name, a preference and, if they have one, an
            instruction.
        prompts: That nothing was trained on.
        methods: Names (`METHOD`, `METHOD@N`, `METHOD+best-of-N`), or objects of your own. The base
            is measured too, whether it is named or not: gains are over it.
        output_dir: Folder of results and report; goes on where it stopped.
        judge: Judges answers; by default the library's rewards fitted on the half of the pairs that
            its experts' rewards never saw.
        seed: Random seed of the answers.
        max_tokens: Longest answer.

    Raises:
        InvalidInputError: a method is unknown, the library lacks what it needs, there are no users
            or prompts, or the folder holds results of another comparison.
        FormatError: the library has no rewards to judge by.
    """
    start, out = monotonic(), Path(output_dir)
    own = {method.name: method for method in methods if not isinstance(method, str)}
    names = [method if isinstance(method, str) else method.name for method in methods]
    names = list(dict.fromkeys([BASE, *names]))
    require_methods(names, {**library.methods, **own})
    listed = users_from(users)
    if not prompts or not listed:
        raise InvalidInputError("There are no users or no prompts; give at least one of each.")
    _require_preferences(listed, objectives=library.manifest.objective_names)
    chosen, notes = (judge, []) if judge is not None else _held_back(library)
    label = "held-back" if judge is None else type(judge).__name__
    task = Task(listed, tuple(prompts), seed, label, max_tokens)
    context = Context(task, library, Libraries(library.files.folder), own)
    results = open_results(out / RESULTS)
    content = {
        "library": str(library.files.folder),
        "library_key": fingerprint_of(library),
        "own_methods": {name: identity_of(method) for name, method in own.items()},
        "users": [user.model_dump(mode="json") for user in listed],
        "prompts": list(prompts),
        "methods": names,
        "seeds": [seed],
        "max_tokens": max_tokens,
        "judge": {"kind": label},
    }
    _keep_suite(content, out)
    with progress_of("evaluation, methods") as report:
        for place, name in enumerate(names, start=1):
            fill_entrant(context, name, task.prompts, judge=chosen, results=results)
            results.append(entrant_facts(context, name))
            report(place, len(names))
    results.notes += notes
    evaluation = write_report(content, results, out=out)
    return Evaluated(results, evaluation, monotonic() - start)


def users_from(users: Users) -> tuple[UserSettings, ...]:
    """Users as a suite holds them.

    Raises:
        InvalidInputError: two have one name.
    """
    if isinstance(users, Mapping):
        found = [UserSettings(name=name, preference=dict(shares)) for name, shares in users.items()]
    else:
        found = [
            UserSettings(
                name=user.name,
                preference=dict(user.preference),
                instruction=getattr(user, "instruction", None) or "",
                shape=getattr(user, "shape", ""),
                cluster=getattr(user, "cluster", ""),
            )
            for user in users
        ]
    names = [user.name for user in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InvalidInputError(f"Two users have the name {twice[0]!r}; give each their own.")
    return tuple(found)


def _held_back(library: Library) -> tuple[SuiteJudge, list[str]]:
    """The default judge, and what has to be said of it."""
    rewards, missing = held_back_rewards(library.files)
    if not missing:
        return RewardJudge(rewards), []
    return RewardJudge(rewards), [
        f"Judged by the reward that taught the experts, which flatters what was trained or ranked "
        f"by it: {', '.join(missing)}."
    ]


def _default_workers(suite: Suite) -> int:
    return (cpu_count() or 1) if suite.library == WORLD else 1


def _require_preferences(
    users: Sequence[UserSettings], *, objectives: Sequence[str] | None = None
) -> None:
    for user in users:
        Preference.from_mapping(user.preference, objectives=objectives or tuple(user.preference))


def _keep_suite(content: dict[str, Any], out: Path) -> None:
    """Write the suite beside its results; two are not mixed.

    Raises:
        InvalidInputError: the folder holds results of another suite.
    """
    path = out / SUITE
    if path.exists():
        found = read_json(path, what="suite")
        content["seeds"] = list(dict.fromkeys([*found.get("seeds", []), *content["seeds"]]))
        known = found.get("own_methods", {})
        for name, identity in content.get("own_methods", {}).items():
            if known.get(name, identity) != identity:
                raise InvalidInputError(
                    f"The folder {str(out)!r} holds results of another method {name!r}; give a new "
                    "folder, or the method another name."
                )
        if known:
            content["own_methods"] = {**known, **content.get("own_methods", {})}
        for key, value in content.items():
            if key not in _MAY_GROW and found.get(key) != value:
                raise InvalidInputError(
                    f"The folder {str(out)!r} holds results of a suite with another {key!r} "
                    f"({str(found.get(key))[:60]}); give a new folder."
                )
    write_json(path, content)
