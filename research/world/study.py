"""What experts and soups of the small world are worth: several builds, judged on held-out prompts.

For every seed the world's library is built anew (base rollouts, annotators, rewards, experts).
Base, experts and the eight users' soups answer the held-out prompts at temperature 1 with common
seeds, and the gold rules, which taught nobody, judge. Differences from the base are paired by
prompt and seed; intervals resample whole prompts.

The checks are those that the library is meant to pass: every expert gains at least `LEAST_GAIN` on
its own objective and keeps at least `LEAST_WELL_FORMED` of its answers well-formed, and in at least
`LEAST_SERVED` of the eight combinations the user's soup beats the base on all three objectives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from palate import Library
from palate.build.library import build_library
from palate.core.errors import CheckFailedError, InvalidInputError
from palate.core.files import dump_json, write_json, write_text_atomic
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.metrics.intervals import Interval, bootstrap_interval
from research.command_line import IsJson, Seeds, run, whole_numbers
from research.world.demo import BASE_NAME, demo_entries, wanted_by
from research.world.judged import Judged, judge_entries
from research.world.objectives import OBJECTIVE_NAMES, USERS
from research.world.prompts import held_out_prompts
from research.world.settings import world_run

LEAST_GAIN = 0.30
LEAST_WELL_FORMED = 0.95
LEAST_SERVED = 7


@dataclass(frozen=True)
class StudySettings:
    """How large the study is.

    Attributes:
        work: Folder for the libraries; builds there are resumed.
        seeds: One library each.
        n_per_prompt: Answers to every held-out prompt, per plan and seed.
    """

    work: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    n_per_prompt: int = 2

    def __post_init__(self) -> None:
        """Refuse no seeds, seeds that occur twice, and no answers."""
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or self.n_per_prompt < 1:
            raise InvalidInputError(
                f"The seeds {list(self.seeds)} and {self.n_per_prompt} answers per prompt make no "
                "study; give different seeds and at least one answer."
            )


@dataclass(frozen=True)
class ExpertFinding:
    """One expert against the base.

    Attributes:
        name: Of expert and objective.
        base_mean: Gold reward of the base's answers.
        mean: Gold reward of the expert's answers.
        gain: Their paired difference, over all seeds, prompts resampled.
        gain_by_seed: The difference in each seed.
        well_formed: Share of the expert's answers that the grammar parses.
    """

    name: str
    base_mean: float
    mean: float
    gain: Interval
    gain_by_seed: tuple[float, ...]
    well_formed: Interval

    @property
    def is_passed(self) -> bool:
        """Whether gain and well-formed share reach their thresholds, over all seeds."""
        return self.gain.estimate >= LEAST_GAIN and self.well_formed.estimate >= LEAST_WELL_FORMED


@dataclass(frozen=True)
class UserFinding:
    """One user's soup against the base.

    Attributes:
        name: Of the user.
        gains: By wanted objective, paired difference over all seeds.
        well_formed: Share of the soup's answers that the grammar parses.
        served_by_seed: Whether all three gains are positive, in each seed.
    """

    name: str
    gains: Mapping[str, Interval]
    well_formed: Interval
    served_by_seed: tuple[bool, ...]

    @property
    def is_served(self) -> bool:
        """Whether all three gains are positive over all seeds."""
        return all(gain.estimate > 0 for gain in self.gains.values())


@dataclass(frozen=True)
class StudyReport:
    """The findings.

    Attributes:
        settings: Seeds and answers per prompt.
        n_prompts: Held-out prompts.
        base_well_formed: Share of the base's answers that the grammar parses.
        experts: One per objective.
        users: One per combination.
    """

    settings: StudySettings
    n_prompts: int
    base_well_formed: Interval
    experts: tuple[ExpertFinding, ...]
    users: tuple[UserFinding, ...]

    @property
    def n_served(self) -> int:
        """Users whose soup beats the base on all three objectives, over all seeds."""
        return sum(user.is_served for user in self.users)

    @property
    def failures(self) -> tuple[str, ...]:
        """Which checks failed, each in a few words."""
        found = [
            f"expert {row.name} (gain {row.gain.estimate:.3f}, well-formed "
            f"{row.well_formed.estimate:.3f})"
            for row in self.experts
            if not row.is_passed
        ]
        if self.n_served < LEAST_SERVED:
            found.append(f"soups serve {self.n_served} of {len(self.users)} users")
        return tuple(found)


def study_world(settings: StudySettings) -> StudyReport:
    """Build, answer and judge for every seed.

    Raises:
        InvalidInputError: a build's folder holds something else.
        FormatError: a build's folder holds a library of another base.
    """
    prompts = held_out_prompts()
    judged: list[dict[str, Judged]] = []
    for seed in settings.seeds:
        folder = settings.work / f"seed-{seed}"
        build_library(world_run(settings.work, seed=seed), out=folder)
        opened = Library.load(folder)
        entries = demo_entries(opened, method="soup")
        with progress_of(f"judge seed {seed}, entries") as report:
            found: dict[str, Judged] = {}
            for place, (name, entry) in enumerate(entries.items(), start=1):
                found |= judge_entries(
                    opened,
                    {name: entry},
                    prompts,
                    n_per_prompt=settings.n_per_prompt,
                    seed=seed,
                )
                report(place, len(entries))
        judged.append(found)
    return report_of(judged, settings=settings)


def report_of(judged: Sequence[Mapping[str, Judged]], *, settings: StudySettings) -> StudyReport:
    """The findings in judged answers.

    Args:
        judged: `[seeds]`: by plan; all plans and seeds answer the same prompts in the same order.
        settings: What was asked for.
    """
    return StudyReport(
        settings=settings,
        n_prompts=len(set(judged[0][BASE_NAME].prompt.tolist())),
        base_well_formed=_well_formed(BASE_NAME, judged),
        experts=tuple(_expert(name, judged) for name in OBJECTIVE_NAMES),
        users=tuple(_user(user.name, judged) for user in USERS),
    )


def write_study(report: StudyReport, folder: Path) -> None:
    """Write `world-experts.md` and `world-experts.json` into the folder."""
    write_json(folder / "world-experts.json", study_json(report))
    write_text_atomic(folder / "world-experts.md", render_study(report))


def study_json(report: StudyReport) -> dict[str, Any]:
    """The findings as plain data."""
    return {
        "seeds": list(report.settings.seeds),
        "n_prompts": report.n_prompts,
        "n_per_prompt": report.settings.n_per_prompt,
        "base_well_formed": report.base_well_formed.to_json(),
        "experts": [
            {
                "name": row.name,
                "base_mean": row.base_mean,
                "mean": row.mean,
                "gain": row.gain.to_json(),
                "gain_by_seed": list(row.gain_by_seed),
                "well_formed": row.well_formed.to_json(),
                "is_passed": row.is_passed,
            }
            for row in report.experts
        ],
        "users": [
            {
                "name": row.name,
                "gains": {name: gain.to_json() for name, gain in row.gains.items()},
                "well_formed": row.well_formed.to_json(),
                "is_served": row.is_served,
                "served_by_seed": list(row.served_by_seed),
            }
            for row in report.users
        ],
        "n_served": report.n_served,
        "failures": list(report.failures),
    }


def render_study(report: StudyReport) -> str:
    """The findings as Markdown."""
    seeds = ",".join(str(seed) for seed in report.settings.seeds)
    lines = [
        "# Experts and soups of the small world",
        "",
        f"`python -m research.world.study --seeds {seeds} "
        f"--answers {report.settings.n_per_prompt}`: "
        f"{len(report.settings.seeds)} libraries built from nothing but the base, "
        f"{report.n_prompts} held-out prompts, {report.settings.n_per_prompt} answers each at "
        "temperature 1, gold rules as judge. Rewards were learned from simulated annotators. "
        "Brackets: 95 % intervals, whole prompts resampled.",
        "",
        f"Well-formed answers of the base: {_text(report.base_well_formed)}.",
        "",
        "| expert | base | expert | gain | gain in each seed | well-formed | passed |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.base_mean:.3f} | {row.mean:.3f} | {_text(row.gain)} | "
        f"{', '.join(f'{gain:.3f}' for gain in row.gain_by_seed)} | {_text(row.well_formed)} | "
        f"{_yes(is_so=row.is_passed)} |"
        for row in report.experts
    ]
    lines += [
        "",
        f"Passed: a gain of at least {LEAST_GAIN} and a well-formed share of at least "
        f"{LEAST_WELL_FORMED}.",
        "",
        "Soups: even coefficients on the user's three experts, at each library's own strength.",
        "",
        "| user | gains over the base | well-formed | beats the base on all three | in seeds |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | "
        + "; ".join(f"{name} {_text(gain)}" for name, gain in row.gains.items())
        + f" | {_text(row.well_formed)} | {_yes(is_so=row.is_served)} | "
        + f"{sum(row.served_by_seed)} of {len(row.served_by_seed)} |"
        for row in report.users
    ]
    lines += ["", f"Served: {report.n_served} of {len(report.users)}.", ""]
    failed = "; ".join(report.failures)
    lines += [f"Failed checks: {failed}." if failed else "All checks passed.", ""]
    return "\n".join(lines)


def _expert(name: str, judged: Sequence[Mapping[str, Judged]]) -> ExpertFinding:
    column = OBJECTIVE_NAMES.index(name)
    gains = [_gains(found, name, column) for found in judged]
    base = np.concatenate([found[BASE_NAME].gold[:, column] for found in judged])
    return ExpertFinding(
        name=name,
        base_mean=float(base.mean()),
        mean=float(base.mean() + np.concatenate(gains).mean()),
        gain=_interval(np.concatenate(gains), judged, "gain", name),
        gain_by_seed=tuple(float(gain.mean()) for gain in gains),
        well_formed=_well_formed(name, judged),
    )


def _user(name: str, judged: Sequence[Mapping[str, Judged]]) -> UserFinding:
    wanted = wanted_by(name)
    gains = {
        objective: [_gains(found, name, OBJECTIVE_NAMES.index(objective)) for found in judged]
        for objective in wanted
    }
    return UserFinding(
        name=name,
        gains={
            objective: _interval(np.concatenate(rows), judged, "soup", name, objective)
            for objective, rows in gains.items()
        },
        well_formed=_well_formed(name, judged),
        served_by_seed=tuple(
            all(rows[place].mean() > 0 for rows in gains.values()) for place in range(len(judged))
        ),
    )


def _gains(found: Mapping[str, Judged], name: str, column: int) -> Float[ndarray, " answers"]:
    return found[name].gold[:, column] - found[BASE_NAME].gold[:, column]


def _well_formed(name: str, judged: Sequence[Mapping[str, Judged]]) -> Interval:
    is_so: Bool[ndarray, " answers"] = np.concatenate(
        [found[name].is_well_formed for found in judged]
    )
    return _interval(is_so.astype(float), judged, "well-formed", name)


def _interval(
    values: Float[ndarray, " answers"], judged: Sequence[Mapping[str, Judged]], *names: str
) -> Interval:
    """A prompt is one cluster in all seeds."""
    clusters: Int[ndarray, " answers"] = np.concatenate(
        [found[BASE_NAME].prompt for found in judged]
    )
    return bootstrap_interval(
        values, clusters=clusters, generator=generator_for(0, "study", *names)
    )


def _text(interval: Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _yes(*, is_so: bool) -> str:
    return "yes" if is_so else "no"


def main(
    *,
    seeds: Seeds = "0,1,2",
    n_per_prompt: Annotated[int, typer.Option("--answers", help="Per prompt and plan.")] = 2,
    work: Annotated[Path, typer.Option(help="Folder of the libraries.")] = Path("out/world-study"),
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports"),
    is_json: IsJson = False,
) -> None:
    """Six experts and eight users' soups against the base, on held-out prompts, gold as judge."""
    chosen = whole_numbers(seeds, what="seeds")
    report = study_world(StudySettings(work=work, seeds=chosen, n_per_prompt=n_per_prompt))
    write_study(report, out)
    typer.echo(dump_json(study_json(report)) if is_json else render_study(report))
    if report.failures:
        raise CheckFailedError(f"The study's checks failed: {'; '.join(report.failures)}.")


if __name__ == "__main__":
    run(main)
