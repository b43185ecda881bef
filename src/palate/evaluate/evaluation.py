"""`palate evaluate`: users x prompts x methods x seeds, judged, compared, and reported.

Everything that is measured goes into `results.jsonl`, row by row; the report is computed from that
file and `suite.json` alone. An interrupted run goes on after the last whole row. Several processes
can share the work; the rows that they make are written by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from palate.core.decision import Method
from palate.core.errors import InvalidInputError
from palate.core.files import read_json, write_json, write_text_atomic
from palate.core.simplex import vector_from_mapping
from palate.evaluate.catalogue import BASE, parse_name
from palate.evaluate.context import (
    Context,
    fingerprint_of,
    require_methods,
    suite_context,
    suite_prompts,
    suite_task,
)
from palate.evaluate.facts import SLOWNESS, speed_facts
from palate.evaluate.judges import SuiteJudge, held_back_notes, judge_for
from palate.evaluate.page import render_markdown, render_page
from palate.evaluate.report import Report, make_report
from palate.evaluate.rows import RESULTS, Results, open_results
from palate.evaluate.suite import JudgeSettings, Suite, UserSettings
from palate.evaluate.work import OpenContext, Worker, jobs_of, run_jobs
from palate.library.library import Library
from palate.methods.table import available_methods
from palate.rewards.functions import identity_of

SUITE = "suite.json"
DEFAULT_METHODS = ("base", "prompt", "prompted-soup", "auto")
# rows of less stay right
_MAY_GROW = ("own_methods", "methods", "seeds", "n_prompts", "n_per_prompt")


class NamedUser(Protocol):
    """A user as Python code has one; `instruction`, `shape` and `cluster` may be missing."""

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
class Evaluation:
    """What the rows say together: numbers, and the same to read."""

    report: Report
    markdown: str


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A finished evaluation; `seconds` are the wall clock of this run."""

    results: Results
    evaluation: Evaluation
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain data."""
        return {"seconds": round(self.seconds, 1), **self.evaluation.report.to_json()}


def evaluate(library: Path, suite: Suite, *, out: Path, n_workers: int = 1) -> Evaluated:
    """Compare methods of the library in a folder, and write the report into `out`.

    It goes on where it stopped. Each worker has the base in memory; the rows are the same with any
    number of them.

    Raises:
        InvalidInputError: the folder holds results of another suite, a method is unknown, or the
            library lacks what a method needs.
        FormatError: the results file is of another version.
    """
    start = monotonic()
    require_methods(suite.methods)
    opened = Library.load(library)
    if not suite.methods:
        suite = suite.model_copy(update={"methods": methods_of(opened)})
    require_preferences(suite.users, opened)
    content = {
        "library": str(library),
        "library_key": fingerprint_of(opened),
        **suite.model_dump(mode="json"),
    }
    parts = partial(suite_context, suite, opened if n_workers == 1 else library)
    notes = held_back_notes(opened) if suite.judge.kind == "held-back" else []
    done = compare(suite, parts, content=content, out=out, n_workers=n_workers, notes=notes)
    return Evaluated(*done, monotonic() - start)


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

    Users are names with preferences, or objects with a name, a preference and, if they have one, an
    instruction; prompts are some that nothing was trained on. Methods are names (`METHOD`,
    `METHOD@N`, `METHOD+best-of-N`), or objects of your own; the base is measured too, whether it is
    named or not: gains are over it. In `output_dir` it goes on where it stopped. The default judge
    is the library's rewards fitted on the half of the pairs that its experts' rewards never saw.

    Raises:
        InvalidInputError: a method is unknown, the library lacks what it needs, there are no users
            or prompts, or the folder holds results of another comparison.
        FormatError: the library has no rewards to judge by.
    """
    start = monotonic()
    own = {method.name: method for method in methods if not isinstance(method, str)}
    names = [method if isinstance(method, str) else method.name for method in methods]
    names = list(dict.fromkeys([BASE, *names]))
    require_methods(names, {**library.methods, **own})
    listed = users_from(users)
    if not prompts or not listed:
        raise InvalidInputError("There are no users or no prompts; give at least one of each.")
    require_preferences(listed, library)
    settings = JudgeSettings()
    suite = Suite(
        users=listed,
        prompts=tuple(prompts),
        n_prompts=0,
        methods=tuple(names),
        seeds=(seed,),
        max_tokens=max_tokens,
    )
    label = settings.label if judge is None else type(judge).__name__
    content = {
        "library": str(library.files.folder),
        "library_key": fingerprint_of(library),
        "own_methods": {name: identity_of(method) for name, method in own.items()},
        **suite.model_dump(mode="json"),
        "judge": {"kind": label},
    }
    used = judge_for(settings, library) if judge is None else judge
    notes = held_back_notes(library) if judge is None else []

    def parts(seed: int) -> Context:
        return Context(suite_task(suite, seed, judge=label), library, used, own)

    done = compare(
        suite, parts, content=content, out=Path(output_dir), with_speeds=False, notes=notes
    )
    return Evaluated(*done, monotonic() - start)


def compare(  # noqa: PLR0913  what both doors and the laboratory's board share
    suite: Suite,
    open_context: OpenContext,
    *,
    content: dict[str, Any],
    out: Path,
    n_workers: int = 1,
    with_speeds: bool = True,
    notes: Sequence[str] = (),
) -> tuple[Results, Evaluation]:
    """Answer, judge and compare what is missing, and write the report.

    `open_context` is picklable where several processes share the work, `content` is that of
    `suite.json`, and `notes` are sentences for the end of the report.

    Raises:
        InvalidInputError: the folder holds results of another suite.
        FormatError: the results file is of another version.
    """
    results = open_results(out / RESULTS)
    _store_suite(content, out)
    worker = Worker(open_context)
    jobs = jobs_of(suite, suite_prompts(suite), results)
    run_jobs(jobs, worker, results=results, n_workers=n_workers)
    for method in suite.methods if with_speeds else ():
        is_timed = parse_name(method).n_comparisons is None  # learned, it costs the same
        if is_timed and ("fact", SLOWNESS, method, "", suite.seeds[0]) not in results:
            results.append(speed_facts(worker.context(suite.seeds[0]), method))
    results.notes += notes
    report = make_report(content, results)  # from here on without any model
    markdown = render_markdown(report)
    write_json(out / "report.json", report.to_json())
    write_text_atomic(out / "report.md", markdown)
    write_text_atomic(out / "report.html", render_page(report))
    return results, Evaluation(report, markdown)


def users_from(users: Users) -> tuple[UserSettings, ...]:
    """Users as a suite holds them; InvalidInputError where two have one name."""
    if isinstance(users, Mapping):
        return tuple(UserSettings(name=name, preference=dict(p)) for name, p in users.items())
    listed = tuple(
        UserSettings(
            name=user.name,
            preference=dict(user.preference),
            instruction=getattr(user, "instruction", None) or "",
            shape=getattr(user, "shape", ""),
            cluster=getattr(user, "cluster", ""),
        )
        for user in users
    )
    names = [user.name for user in listed]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InvalidInputError(f"Two users have the name {twice[0]!r}; give each their own.")
    return listed


def methods_of(library: Library) -> tuple[str, ...]:
    """Every method that the library can serve, the base first."""
    return tuple(dict.fromkeys([BASE, *available_methods(library)]))


def require_preferences(users: Sequence[UserSettings], library: Library) -> None:
    """Raise `InvalidPreferenceError` for a preference off the simplex or an unknown objective."""
    for user in users:
        vector_from_mapping(user.preference, objectives=library.manifest.objective_names)


def _store_suite(content: dict[str, Any], out: Path) -> None:
    """Write the suite beside its results; InvalidInputError where these are of another suite."""
    path = out / SUITE
    if path.exists():
        stored = read_json(path, what="suite")
        content["seeds"] = list(dict.fromkeys([*stored.get("seeds", []), *content["seeds"]]))
        known, own = stored.get("own_methods", {}), content.get("own_methods", {})
        for name, identity in own.items():
            if known.get(name, identity) != identity:
                raise InvalidInputError(
                    f"The folder {str(out)!r} holds results of another method {name!r}; give a new "
                    "folder, or the method another name."
                )
        if known or own:
            content["own_methods"] = {**known, **own}
        for key, value in content.items():
            if key not in _MAY_GROW and stored.get(key) != value:
                raise InvalidInputError(
                    f"The folder {str(out)!r} holds results of a suite with another {key!r} "
                    f"({str(stored.get(key))[:60]}); give a new folder."
                )
    write_json(path, content)
