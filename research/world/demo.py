"""The whole story on the small world, in a few minutes on two cores: `make demo`.

Simulated annotators label pairs, six reward models and six experts are trained; then one prompt
about a topic that nothing was trained on is answered for eight users by the same model with eight
coefficient vectors, and the gold rules judge the base, every expert and what every user gets
(`auto`), beside a system prompt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from palate.build.library import build_library
from palate.core.decision import Known
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json, write_json, write_text_atomic
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.library.library import Library
from palate.metrics.intervals import bootstrap_interval
from palate.rewards.reward import LearnedReward, load_reward
from research.command_line import IsJson, Seed, run
from research.world.demo_page import (
    Cell,
    DemoReport,
    RewardLine,
    TableRow,
    UserAnswer,
    render_demo_page,
)
from research.world.demo_story import LEARNED, learned_story, mixture_story, portfolio_story
from research.world.judged import Entry, Judged, judge_entries
from research.world.objectives import OBJECTIVE_NAMES, USERS
from research.world.prompts import held_out_prompts
from research.world.settings import world_run

BASE_NAME = "base"
PROMPT_ONLY = "prompt: "  # before a user's name: the same user answered by a system prompt


@dataclass(frozen=True)
class DemoSettings:
    """How large the demo is.

    Attributes:
        out: Folder for the library and the report.
        prompt: What everybody asks; by default the first held-out prompt.
        n_prompts: Held-out prompts behind the table.
        seed: Random seed of the run.
    """

    out: Path
    prompt: str | None = None
    n_prompts: int = 48
    seed: int = 0


def run_demo(settings: DemoSettings) -> DemoReport:
    """Build, answer, judge, and write `report.html`, `report.json` and the library.

    Raises:
        InvalidInputError: the numbers are out of range, or the prompt asks about no known topic.
    """
    prompts = held_out_prompts()
    if not 2 <= settings.n_prompts <= len(prompts):
        raise InvalidInputError(
            f"The demo cannot judge {settings.n_prompts} prompts; use 2 to {len(prompts)}."
        )
    built = build_library(world_run(settings.out, seed=settings.seed), out=settings.out / "library")
    opened = Library.load(settings.out / "library")
    entries = demo_entries(opened)
    users = {user.name: entries[user.name] for user in USERS}
    prompt = settings.prompt or prompts[0]
    shown = judge_entries(opened, entries, [prompt], seed=settings.seed)
    prompted = {PROMPT_ONLY + name: (known, "prompt") for name, (known, _) in users.items()}
    with progress_of("judge answers to held-out prompts") as report_progress:
        done = [0]

        def advance(n: int) -> None:
            done[0] += n
            report_progress(done[0], (len(entries) + len(prompted)) * settings.n_prompts)

        judged = judge_entries(
            opened,
            {**entries, **prompted},
            prompts[: settings.n_prompts],
            seed=settings.seed,
            on_answers=advance,
        )
    report = DemoReport(
        prompt=prompt,
        base_answer=shown[BASE_NAME].texts[0].strip(),
        users=tuple(
            UserAnswer(user.name, user.label, shown[user.name].texts[0].strip()) for user in USERS
        ),
        objectives=OBJECTIVE_NAMES,
        rows=tuple(_row(name, judged[name], seed=settings.seed) for name in entries),
        rewards=_reward_lines(opened),
        n_parameters=opened.base.model.num_parameters(),
        n_prompts=settings.n_prompts,
        n_answers=settings.n_prompts,
        over_prompt=_over_prompt(judged, seed=settings.seed),
        n_users_served=sum(is_served(user.name, judged) for user in USERS),
        experts=opened.bank.names,
        n_trained=len(built.trained),
        build_seconds=built.seconds,
        seed=settings.seed,
        portfolio=portfolio_story(opened, seed=settings.seed),
        learned=learned_story(
            opened, entries[LEARNED.name], prompts[: settings.n_prompts], seed=settings.seed
        ),
        mixture=mixture_story(opened, prompt, seed=settings.seed),
    )
    write_text_atomic(settings.out / "report.html", render_demo_page(report))
    write_json(settings.out / "report.json", demo_json(report))
    return report


def demo_entries(opened: Library, *, method: str = "auto") -> dict[str, Entry]:
    """The base, every expert alone, and what every user gets from a method, by name."""
    entries: dict[str, Entry] = {BASE_NAME: (Known(), "base")}
    for name in opened.bank.names:
        entries[name] = (Known(coefficients={name: 1.0}), "soup")
    for user in USERS:
        shares = dict(zip(OBJECTIVE_NAMES, user.preference.shares, strict=True))
        entries[user.name] = (Known(preference=shares), method)
    return entries


def wanted_by(name: str) -> tuple[str, ...]:
    """Objectives that the named expert was trained for, or that the named user wants."""
    for user in USERS:
        if user.name == name:
            return tuple(objective.name for objective in user.objectives)
    return (name,) if name in OBJECTIVE_NAMES else ()


def is_served(name: str, judged: dict[str, Judged]) -> bool:
    """Whether what the user gets has a higher mean gold reward than the base on all they want."""
    gains = judged[name].gold.mean(axis=0) - judged[BASE_NAME].gold.mean(axis=0)
    return all(gains[OBJECTIVE_NAMES.index(objective)] > 0 for objective in wanted_by(name))


def _over_prompt(judged: Mapping[str, Judged], *, seed: int) -> Cell:
    """What users get less what a system prompt on the base gives them, in gold utility."""
    differences: list[Float[ndarray, " answers"]] = []
    for user in USERS:
        gap = judged[user.name].gold - judged[PROMPT_ONLY + user.name].gold
        differences.append(gap @ user.preference.vector())
    interval = bootstrap_interval(
        np.concatenate(differences),
        clusters=np.concatenate([judged[user.name].prompt for user in USERS]),
        generator=generator_for(seed, "interval", "over prompt"),
    )
    return Cell(interval.estimate, interval.low, interval.high, is_wanted=True)


def demo_json(report: DemoReport) -> dict[str, Any]:
    """The report's numbers and texts as plain data."""
    return {
        "prompt": report.prompt,
        "seed": report.seed,
        "n_trained": report.n_trained,
        "build_seconds": round(report.build_seconds, 1),
        "n_prompts": report.n_prompts,
        "base_answer": report.base_answer,
        "users": [vars(user) for user in report.users],
        "gold": {
            row.name: {
                "well_formed": row.well_formed,
                **{
                    name: vars(cell)
                    for name, cell in zip(report.objectives, row.cells, strict=True)
                },
            }
            for row in report.rows
        },
        "rewards": [vars(line) for line in report.rewards],
        "n_users_served": report.n_users_served,
        "over_prompt": vars(report.over_prompt),
        "portfolio": {
            "certified_by_size": list(report.portfolio.certified),
            "estimated_by_size": list(report.portfolio.estimated),
            "members_by_size": [list(members) for members in report.portfolio.members],
            "confidence": report.portfolio.confidence,
            "n_prompts": report.portfolio.n_prompts,
        },
        "learned": {
            "user": report.learned.user,
            "gold_utility": {
                str(n): vars(cell)
                for n, cell in zip(
                    report.learned.comparisons, report.learned.utilities, strict=True
                )
            },
            "known": vars(report.learned.known),
        },
        "mixture": report.mixture.explanation.to_json(),
    }


def _row(name: str, judged: Judged, *, seed: int) -> TableRow:
    wanted = wanted_by(name)
    cells: list[Cell] = []
    for column, objective in enumerate(OBJECTIVE_NAMES):
        interval = bootstrap_interval(
            judged.gold[:, column],
            clusters=judged.prompt,
            generator=generator_for(seed, "interval", name, objective),
        )
        cells.append(
            Cell(interval.estimate, interval.low, interval.high, is_wanted=objective in wanted)
        )
    return TableRow(name, tuple(cells), float(np.mean(judged.is_well_formed)))


def _reward_lines(opened: Library) -> tuple[RewardLine, ...]:
    rewards = [load_reward(opened.files.reward_folder(name)) for name in OBJECTIVE_NAMES]
    return tuple(_reward_line(reward) for reward in rewards)


def _reward_line(reward: LearnedReward) -> RewardLine:
    accuracy = reward.card.held_out.accuracy
    return RewardLine(
        objective=reward.objective,
        accuracy=accuracy.estimate,
        low=accuracy.low,
        high=accuracy.high,
        n=accuracy.n,
        longer_wins=reward.card.held_out.longer_wins.estimate,
    )


def main(
    *,
    out: Annotated[Path, typer.Option(help="Folder for library and report.")] = Path("out/demo"),
    prompt: Annotated[str | None, typer.Option(help="What everybody asks.")] = None,
    n_prompts: Annotated[int, typer.Option("--prompts", help="Prompts behind the table.")] = 48,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """The whole story on the small world: train experts, answer eight users, judge, report."""
    report = run_demo(DemoSettings(out, prompt=prompt, n_prompts=n_prompts, seed=seed))
    if is_json:
        typer.echo(dump_json(demo_json(report)))
        return
    console = Console()
    _print_answers(console, report)
    console.print(_gold_table(report))
    over = report.over_prompt
    console.print(
        f"What users get beats the base on all three wanted objectives for "
        f"{report.n_users_served} of {len(report.users)} users, and a system prompt by "
        f"{over.mean:+.2f} [{over.low:+.2f}, {over.high:+.2f}] in utility. The gold rules judge: "
        "the annotators' labels, from which rewards were learned, are these plus noise."
    )
    console.print(f"Library: {out / 'library'}   Report: {out / 'report.html'}", markup=False)


def _print_answers(console: Console, report: DemoReport) -> None:
    console.print(f"\n[bold]{report.prompt}[/bold]\n")
    panels = [Panel(report.base_answer, title="base", subtitle="no preference", width=58)]
    panels += [
        Panel(user.answer, title=user.name, subtitle=user.label, width=58) for user in report.users
    ]
    console.print(Columns(panels))


def _gold_table(report: DemoReport) -> Table:
    title = f"mean gold reward, {report.n_prompts} held-out prompts (bold: what is wanted)"
    table = Table("answers by", *report.objectives, "well-formed", title=title)
    for place, row in enumerate(report.rows):
        if place in (1, 1 + len(report.experts)):
            table.add_section()
        cells = [
            f"[bold]{cell.mean:.2f}[/bold]" if cell.is_wanted else f"[dim]{cell.mean:.2f}[/dim]"
            for cell in row.cells
        ]
        table.add_row(row.name, *cells, f"{100 * row.well_formed:.1f} %")
    return table


if __name__ == "__main__":
    run(main)
