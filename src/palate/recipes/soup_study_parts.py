"""The whole study of soups: everybody on all seeds; sweep, gap and placements on the first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.files import read_json, write_json
from palate.recipes.soup_study import N_EXPERTS, open_seed, study_soups
from palate.recipes.soup_study_gap import measure_gap
from palate.recipes.soup_study_placement import measure_placements
from palate.recipes.soup_study_report import failures, findings, with_shares, write_report
from palate.recipes.soup_study_sweep import measure_sweep


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
