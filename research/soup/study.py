"""The whole study of soups: everybody on all seeds; sweep, gap and placements on the first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.core.errors import CheckFailedError
from palate.core.files import dump_json, read_json, write_json
from research.command_line import IsJson, Seeds, run, whole_numbers
from research.soup.gap import measure_gap
from research.soup.placement import measure_placements
from research.soup.report import failures, findings, with_shares, write_report
from research.soup.study_users import N_EXPERTS, open_seed, study_soups
from research.soup.sweep import measure_sweep


@dataclass(frozen=True)
class SoupStudy:
    """What was written.

    Attributes:
        text: As Markdown.
        content: As plain data.
        failures: Targets that were missed.
    """

    text: str
    content: dict[str, Any]
    failures: list[str]


def study_report(work: Path, seeds: Sequence[int], *, out: Path, command: str) -> SoupStudy:
    """Measure what is not there yet under `work`, and write the report into `out`.

    Raises:
        InvalidInputError: there are no seeds, or one occurs twice.
    """
    rows = study_soups(work, seeds)
    folder = work / f"seed-{seeds[0]}"
    parts: dict[str, Any] = {}
    if not all((folder / f"{name}.json").is_file() for name in ("sweep", "gap", "placement")):
        seed = open_seed(work, seeds[0])
        _kept(folder / "sweep.json", lambda: measure_sweep(seed))
        _kept(folder / "gap.json", lambda: measure_gap(seed, seed.basis(N_EXPERTS)))
        _kept(folder / "placement.json", lambda: measure_placements(seed, folder))
    for name in ("sweep", "gap", "placement"):
        parts[name] = read_json(folder / f"{name}.json")
    parts["sweep"] = with_shares(parts["sweep"])
    text = write_report(out, rows, parts, command=command)
    found = findings(rows)
    return SoupStudy(text, {"findings": found, **parts}, failures(found))


def _kept(path: Path, measure: Callable[[], Any]) -> None:
    if not path.is_file():
        write_json(path, measure())


def main(
    *,
    seeds: Seeds = "0",
    work: Annotated[Path, typer.Option(help="Folder of libraries and answers; resumed.")] = Path(
        "out/soup-study"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports"),
    is_json: IsJson = False,
) -> None:
    """Percent of a policy trained for the user, on the small world, gold rules as judge."""
    chosen = whole_numbers(seeds, what="seeds")
    command = f"python -m research.soup.study --seeds {seeds}"
    found = study_report(work, chosen, out=out, command=command)
    typer.echo(dump_json(found.content) if is_json else found.text)
    if found.failures:
        raise CheckFailedError(f"The study's checks failed: {'; '.join(found.failures)}.")


if __name__ == "__main__":
    run(main)
