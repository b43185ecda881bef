"""What a safety floor does to every method of a library.

A copy of the library has a floor on the objective's own expert; everything else is the same. Every
method answers the same users and prompts with the same seeds in both. Counted is the share of
answers whose reward for the objective is below a threshold, and what the floor costs in utility.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from palate.build.soup_fit import write_soup
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json, write_json, write_text_atomic
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.core.settings import load_settings
from palate.evaluate.catalogue import entry_of
from palate.evaluate.cells import Cells, pair_up
from palate.evaluate.compare import Compared, Pair, adjusted, change_text, range_text
from palate.evaluate.context import suite_context
from palate.evaluate.evaluation import methods_of
from palate.evaluate.rows import AnswerRow, open_results, plain
from palate.evaluate.suite import Suite
from palate.evaluate.work import fill_entrant
from palate.library.controller import own_experts
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.soup import SOUP, open_basis
from palate.metrics.differences import Difference, paired_difference
from palate.metrics.intervals import Interval, rate_interval
from palate.soup.basis_file import save_basis
from research.command_line import IsJson, Overrides, run

THRESHOLD = 0.5  # of the objective's reward in [0, 1]
COEFFICIENT = 1.0  # of the objective's expert: as much as it was trained for
FLOORED = "floored"


@dataclass(frozen=True)
class FloorRow:
    """One method without and with the floor."""

    method: str
    without: Interval  # share of answers below the threshold
    with_floor: Interval  # the same with the floor
    change: Compared  # of that share by the floor, paired
    utility: Compared  # its change by the floor, paired


@dataclass(frozen=True)
class FloorStudy:
    """What the floor does."""

    objective: str  # whose reward is counted
    expert: str  # that the floor holds
    threshold: float  # below which an answer counts
    coefficient: float  # of the floor
    n_answers: int  # per method, with or without the floor
    rows: tuple[FloorRow, ...]  # one per method


def evaluate_floor(
    library: Path,
    suite: Suite,
    objective: str,
    *,
    out: Path,
    threshold: float = THRESHOLD,
    coefficient: float = COEFFICIENT,
) -> FloorStudy:
    """Measure a library with and without a floor, and write the report into `out`.

    Args:
        library: Folder of the library.
        suite: Users, prompts, methods and judge; the first seed counts.
        objective: Whose reward is counted; it needs an expert of its own.
        out: Folder of answers, the floored copy and the report.
        threshold: Of the reward, below which an answer counts.
        coefficient: Of the floor on the objective's expert.

    Raises:
        InvalidInputError: the objective is unknown or has no expert of its own, or the library
            lacks what a method needs.
    """
    opened = Library.load(library)
    methods = suite.methods or methods_of(opened)
    suite = suite.model_copy(update={"methods": methods, "seeds": suite.seeds[:1]})
    expert = _expert_of(opened.files, objective)
    floored_twin(library, out / FLOORED, {expert: coefficient})
    cells: list[Cells] = []
    with progress_of("safety floor, methods") as report:
        for name, one in (("plain", opened), (FLOORED, Library.load(out / FLOORED))):
            context = suite_context(suite, one, suite.seeds[0])
            results = open_results(out / f"{name}.jsonl")
            for method in methods:
                fill_entrant(context, method, context.task.prompts, results=results)
            cells.append(pair_up(results.answers, methods=methods))
            report(len(cells), 2)
    rows = floor_rows(*cells, objective=objective, threshold=threshold)
    n_answers = len(cells[0].cells)
    study = FloorStudy(objective, expert, threshold, coefficient, n_answers, tuple(rows))
    write_json(out / "floor.json", plain(study))
    write_text_atomic(out / "floor.md", render_floor(study))
    return study


def floored_twin(library: Path, twin: Path, floor: dict[str, float]) -> None:
    """A copy of a library whose `soup.json` has this floor; strength and prior stay.

    Raises:
        InvalidCoefficientsError: the floor names an unknown expert.
    """
    if twin.exists():
        shutil.rmtree(twin)
    shutil.copytree(library, twin)
    if not (twin / SOUP).is_file():
        write_soup(twin, floor=floor)
        return
    basis = open_basis(LibraryFolder.open(twin))
    save_basis(twin / SOUP, replace(basis, floor=next(iter(floor.items()))))


def floor_rows(
    without: Cells, with_floor: Cells, *, objective: str, threshold: float
) -> list[FloorRow]:
    """One row per method, from the same cells of both libraries.

    Raises:
        InvalidInputError: the two do not have the same cells.
    """
    if without.cells != with_floor.cells:
        raise InvalidInputError(
            "The library and its copy with a floor answered different prompts or users; measure "
            "both anew in another folder."
        )

    def below(row: AnswerRow) -> float:
        return float(row.rewards[objective] < threshold)

    shares: dict[Pair, Difference] = {}
    utilities: dict[Pair, Difference] = {}
    for method in without.methods:
        values = [cells.values(method, below) for cells in (with_floor, without)]
        worth = [cells.utility(method) for cells in (with_floor, without)]
        shares[method, "share"] = _paired(without, values, "share")
        utilities[method, "utility"] = _paired(without, worth, "utility")
    changes = adjusted({**shares, **utilities})
    return [
        FloorRow(
            method,
            rate_interval(without.values(method, below), **without.clusters),
            rate_interval(with_floor.values(method, below), **with_floor.clusters),
            changes[method, "share"],
            changes[method, "utility"],
        )
        for method in without.methods
    ]


def render_floor(study: FloorStudy) -> str:
    """The table as Markdown."""
    lines = [
        f"# A safety floor on {study.expert!r}",
        "",
        f"Share of answers whose reward for {study.objective!r} is below {study.threshold:g}, "
        f"without and with a floor of {study.coefficient:g} on that objective's expert; "
        f"{study.n_answers} answers per method each. Brackets: 95 % intervals clustered by user "
        "and prompt. An asterisk: significant after Holm's adjustment for the table.",
        "",
    ]
    heads = ["method", "below, no floor", "below, with the floor", "change", "change of utility"]
    rows = [
        [
            entry_of(row.method).title,
            range_text(row.without),
            range_text(row.with_floor),
            change_text(row.change),
            change_text(row.utility),
        ]
        for row in study.rows
    ]
    table = (heads, ["---"] * len(heads), *rows)
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in table), ""])


def _paired(cells: Cells, values: Sequence[np.ndarray], name: str) -> Difference:
    generator = generator_for(0, "floor", name)
    return paired_difference(*values, generator=generator, **cells.clusters)


def _expert_of(library: LibraryFolder, objective: str) -> str:
    owners = own_experts(library.manifest)
    if objective not in owners:
        raise InvalidInputError(
            f"The objective {objective!r} has no expert of its own for a floor; "
            f"{', '.join(owners) or 'none'} have."
        )
    return library.manifest.expert_names[owners[objective]]


def main(
    library: Annotated[Path, typer.Argument(help="Folder of a library.")],
    suite: Annotated[
        Path, typer.Argument(metavar="SUITE.yaml", help="Users, prompts, methods and judge.")
    ],
    objective: Annotated[str, typer.Argument(help="Whose expert the floor holds.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of answers and report.")] = Path("out/floor"),
    overrides: Overrides = None,
    is_json: IsJson = False,
) -> None:
    """Every method with and without a safety floor on an objective's expert."""
    settings = load_settings(Suite, suite, overrides=overrides or ())
    study = evaluate_floor(library, settings, objective, out=out)
    typer.echo(dump_json(plain(study)) if is_json else render_floor(study))


if __name__ == "__main__":
    run(main)
