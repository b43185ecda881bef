"""`palate evaluate`: people x prompts x ways x seeds, judged, compared, and reported.

Everything that is measured goes into `results.jsonl`, row by row; the report is computed from that
file and `suite.json` alone. An interrupted run goes on after the last whole row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from palate.core.errors import InvalidInputError
from palate.core.files import read_json, write_json
from palate.core.types import Preference
from palate.evaluate.rows import RESULTS, Results, open_results
from palate.evaluate.suite import WORLD, Suite
from palate.recipes.evaluate_facts import fill_facts
from palate.recipes.evaluate_fill import BASE, fill_way
from palate.recipes.evaluate_judges import suite_judge
from palate.recipes.evaluate_kit import Kit
from palate.recipes.evaluate_report import Evaluation, write_report
from palate.recipes.evaluate_ways import way_named
from palate.recipes.evaluate_world import Libraries, world_libraries, world_people
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


def evaluate(suite: Suite, *, out: Path) -> Evaluated:
    """Build what is missing, answer, judge, compare, and write the report into `out`.

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
    ways = (BASE, *(name for name in suite.ways if name != BASE))
    for seed in suite.seeds:
        kit = Kit(suite, seed=seed, libraries=_libraries(suite, seed=seed, out=out))
        _answer(kit, ways, results)
    evaluation = write_report(content, results, out=out)
    return Evaluated(results, evaluation, monotonic() - start)


def _answer(kit: Kit, ways: Sequence[str], results: Results) -> None:
    """All rows of one seed."""
    judge = suite_judge(kit.suite, kit)
    n_rows = len(ways) * len(kit.people) * len(kit.prompts) * kit.suite.n_per_prompt
    n_done = sum(row.seed == kit.seed and row.way in ways for row in results.answers)
    with progress_of(f"seed {kit.seed}, answers") as report:

        def advance(n: int) -> None:
            nonlocal n_done
            n_done += n
            report(n_done, n_rows)

        for name in ways:
            fill_way(kit, name, judge=judge, results=results, on_rows=advance)
            fill_facts(kit, name, results=results)


def _libraries(suite: Suite, *, seed: int, out: Path) -> Libraries:
    if suite.library == WORLD:
        return world_libraries(suite, seed=seed, work=out / f"seed{seed}")
    return Libraries(
        Path(suite.library), Path(suite.bespoke) if suite.bespoke is not None else None, None
    )


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
