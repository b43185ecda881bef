"""The worst case over everybody, against a linear program a candidate.

For every size, members are drawn on a rounded front and candidates inside and beyond it. The gate
comes first: on a sample of candidates, each candidate's gap by the corners must equal its linear
program's to 1e-9. Then the certificate of all candidates is timed against that program, solved for
the sample and extrapolated to all; both by turns, in seconds of this process's CPU time, so that
what else the machine does falls on neither. An adverse case stands beside it, in which almost every
candidate is nearly as bad as the worst so that nothing can be screened out, and so does a size at
which the corners are too many to list.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray
from rich.console import Console
from rich.table import Table

from benchmarks.show import print_gate
from palate.core.errors import CheckFailedError
from palate.core.files import dump_json
from palate.core.seeds import generator_for
from palate.core.settings import Settings, load_settings
from palate.portfolio.envelope import best_values, corner_preferences
from palate.portfolio.gap import additive_gap, program_gap
from research.command_line import IsJson, Overrides, run

GATE = 1e-9  # largest difference of a candidate's gap between corners and linear program


class CertificateBenchSettings(Settings):
    """Sizes of the race."""

    objectives: tuple[int, ...] = (2, 3, 4, 5, 6)
    n_members: int = 8
    n_candidates: int = 100_000
    n_sample: int = 300
    n_many: int = 1_000_000
    many_objectives: int = 6
    n_repeats: int = 15
    seed: int = 0


@dataclass(frozen=True)
class CertificateRace:
    """One size.

    Attributes:
        n_objectives: Rewards a policy has.
        n_members: Members of the portfolio.
        n_candidates: Policies compared with.
        candidates: `drawn`, or `adverse`.
        n_corners: Corner preferences of the members.
        largest_difference: Between corners and programs, over the sample.
        median_seconds: CPU time of the whole certificate: corners, pricing and its one program.
        minimum_seconds: The same, fastest repeat.
        wall_median_seconds: The same by the clock on the wall.
        program_median_seconds: CPU time of one candidate's linear program, over the sample.
        times_faster: One program per candidate over the certificate, medians.
    """

    n_objectives: int
    n_members: int
    n_candidates: int
    candidates: str
    n_corners: int
    largest_difference: float
    median_seconds: float
    minimum_seconds: float
    wall_median_seconds: float
    program_median_seconds: float
    times_faster: float


@dataclass(frozen=True)
class CertificateBench:
    """What was measured.

    Attributes:
        races: One for each size.
        many: The large case.
        fallback_rule: What a size with too many corners was certified by.
    """

    settings: CertificateBenchSettings
    races: tuple[CertificateRace, ...]
    many: CertificateRace
    fallback_rule: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "settings": self.settings.model_dump(),
            "gate": {
                "largest_difference": max(race.largest_difference for race in self.races),
                "limit": GATE,
            },
            "races": [asdict(race) for race in self.races],
            "many": asdict(self.many),
            "too_many_corners": self.fallback_rule,
        }


def bench_certificate(settings: CertificateBenchSettings) -> CertificateBench:
    """Check the gate, then race.

    Raises:
        CheckFailedError: corners and linear programs differ by more than the gate.
    """
    races = [
        race_certificate(d, kind, n_candidates=settings.n_candidates, settings=settings)
        for d in settings.objectives
        for kind in ("drawn", "adverse")
    ]
    many = race_certificate(
        settings.many_objectives, "drawn", n_candidates=settings.n_many, settings=settings
    )
    generator = generator_for(settings.seed, "fallback")
    too_many = additive_gap(members=generator.random((40, 14)), rows=generator.random((5, 14)))
    return CertificateBench(settings, tuple(races), many, too_many.rule)


def race_certificate(
    n_objectives: int, candidates: str, *, n_candidates: int, settings: CertificateBenchSettings
) -> CertificateRace:
    """One size: gate, then both ways by turns.

    Raises:
        CheckFailedError: the gate does not hold.
    """
    generator = generator_for(settings.seed, candidates, n_objectives)
    members = _front(generator, n_rows=settings.n_members, n_objectives=n_objectives)
    make = _drawn if candidates == "drawn" else _adverse
    rows = make(generator, n_rows=n_candidates, members=members)
    sample = rows[generator.choice(n_candidates, size=settings.n_sample, replace=False)]
    difference = _gate(members=members, sample=sample)
    seconds, wall, program_seconds = _raced(
        members=members, rows=rows, sample=sample, n_repeats=settings.n_repeats
    )
    return CertificateRace(
        n_objectives=n_objectives,
        n_members=settings.n_members,
        n_candidates=n_candidates,
        candidates=candidates,
        n_corners=len(corner_preferences(members)),
        largest_difference=difference,
        median_seconds=float(np.median(seconds)),
        minimum_seconds=min(seconds),
        wall_median_seconds=float(np.median(wall)),
        program_median_seconds=float(np.median(program_seconds)),
        times_faster=n_candidates * float(np.median(program_seconds) / np.median(seconds)),
    )


def _gate(
    *, members: Float[ndarray, "members objectives"], sample: Float[ndarray, "rows objectives"]
) -> float:
    """Largest difference of a candidate's gap between corners and linear program."""
    corners = corner_preferences(members)
    ground = best_values(preferences=corners, values=members)
    by_corners = np.max(sample @ corners.T - ground, axis=1)
    by_programs = np.array([program_gap(members=members, row=row).value for row in sample])
    difference = float(np.max(np.abs(by_corners - by_programs)))
    if difference > GATE:
        raise CheckFailedError(
            f"Corners and linear programs differ by {difference:.1e}, more than {GATE:.0e}."
        )
    return difference


def _raced(
    *,
    members: Float[ndarray, "members objectives"],
    rows: Float[ndarray, "rows objectives"],
    sample: Float[ndarray, "rows objectives"],
    n_repeats: int,
) -> tuple[list[float], list[float], list[float]]:
    """CPU and wall seconds of certificates, and CPU seconds of single programs, by turns."""
    additive_gap(members=members, rows=rows)  # warm up; the gate has warmed up the programs
    seconds: list[float] = []
    wall: list[float] = []
    program_seconds: list[float] = []
    for part in np.array_split(sample, n_repeats):
        started, start = time.perf_counter(), time.process_time()
        additive_gap(members=members, rows=rows)
        seconds.append(time.process_time() - start)
        wall.append(time.perf_counter() - started)
        for row in part:
            start = time.process_time()
            program_gap(members=members, row=row)
            program_seconds.append(time.process_time() - start)
    return seconds, wall, program_seconds


def _front(
    generator: np.random.Generator, *, n_rows: int, n_objectives: int
) -> Float[ndarray, "rows objectives"]:
    values = np.abs(generator.normal(size=(n_rows, n_objectives)))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _drawn(
    generator: np.random.Generator, *, n_rows: int, members: Float[ndarray, "members objectives"]
) -> Float[ndarray, "rows objectives"]:
    """Candidates of all qualities, up to the members' front."""
    values = _front(generator, n_rows=n_rows, n_objectives=members.shape[1])
    return values * generator.beta(4, 2, size=(n_rows, 1))


def _adverse(
    generator: np.random.Generator, *, n_rows: int, members: Float[ndarray, "members objectives"]
) -> Float[ndarray, "rows objectives"]:
    """Candidates that are all about equally bad to miss: the worst corner's, moved a little."""
    far = additive_gap(members=members, rows=np.ones((1, members.shape[1])))
    row = np.ones(members.shape[1])
    sideways = generator.normal(size=(n_rows, len(row)))
    sideways -= np.outer(sideways @ far.preference, far.preference) / (
        far.preference @ far.preference
    )
    return row + 1e-3 * sideways


def main(*, overrides: Overrides = None, is_json: IsJson = False) -> None:
    """The worst-case loss from envelope corners, against one linear program per candidate."""
    settings = load_settings(CertificateBenchSettings, overrides=overrides or ())
    result = bench_certificate(settings).to_json()
    if is_json:
        typer.echo(dump_json(result))
        return
    console = Console()
    print_gate(console, result["gate"])
    table = Table(
        "objectives", "candidates", "corners", "certificate ms", "one program ms", "faster"
    )
    for race in [*result["races"], result["many"]]:
        table.add_row(
            str(race["n_objectives"]),
            f"{race['n_candidates']:,} {race['candidates']}",
            str(race["n_corners"]),
            f"{1000 * race['median_seconds']:.1f}",
            f"{1000 * race['program_median_seconds']:.2f}",
            f"{race['times_faster']:,.0f}x",
        )
    console.print(table)
    console.print(f"too many corners: certified by {result['too_many_corners']}")


if __name__ == "__main__":
    run(main)
