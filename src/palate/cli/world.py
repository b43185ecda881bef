"""`palate world`: make the small world's base again, and measure one."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import IsJson, Overrides, whole_numbers
from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="The small assistant world that comes with palate.")

NAnswers = Annotated[int, typer.Option("--answers", help="Answers in each measured sample.")]


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="New folder for the base.")],
    settings: Annotated[Path | None, typer.Option(help="YAML of pre-training settings.")] = None,
    overrides: Overrides = None,
    n_answers: NAnswers = 500,
    is_json: IsJson = False,
) -> None:
    """Train tokenizer and base on the grammar, from nothing, and measure them."""
    from palate.core.settings import load_settings
    from palate.recipes.world import train_world
    from palate.world.pretrain import PretrainSettings

    chosen = load_settings(PretrainSettings, settings, overrides=overrides or ())
    outcome = train_world(chosen, out=out, n_answers=n_answers).to_json()
    if is_json:
        typer.echo(dump_json(outcome))
        return
    console = Console()
    console.print(
        f"{outcome['folder']}: {outcome['parameters']:,} parameters, "
        f"{outcome['train_seconds']:.0f} s, loss {outcome['loss']:.3f}"
    )
    _show(console, outcome["measurement"])


@app.command()
def measure(
    folder: Annotated[Path | None, typer.Argument(help="A base; without it, palate's own.")] = None,
    n_answers: NAnswers = 500,
    seed: Annotated[int, typer.Option(help="Of prompts and answers.")] = 0,
    is_json: IsJson = False,
) -> None:
    """Well-formed share, gold rewards and lengths of a base's answers to held-out prompts."""
    from palate.recipes.world import measure_world
    from palate.world.prompts import base_folder

    found = measure_world(folder or base_folder(), n_answers=n_answers, seed=seed).to_json()
    if is_json:
        typer.echo(dump_json(found))
    else:
        _show(Console(), found)


@app.command()
def study(
    seeds: Annotated[str, typer.Option(help="One library each, separated by commas.")] = "0,1,2",
    n_per_prompt: Annotated[int, typer.Option("--answers", help="Per prompt and plan.")] = 2,
    work: Annotated[Path, typer.Option(help="Folder of the libraries.")] = Path("out/world-study"),
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("reports"),
    is_json: IsJson = False,
) -> None:
    """Six experts and eight people's soups against the base, on held-out prompts, gold as judge."""
    from palate.core.errors import CheckFailedError
    from palate.recipes.world_study import (
        StudySettings,
        render_study,
        study_json,
        study_world,
        write_study,
    )

    chosen = whole_numbers(seeds, what="seeds")
    report = study_world(StudySettings(work=work, seeds=chosen, n_per_prompt=n_per_prompt))
    write_study(report, out)
    typer.echo(dump_json(study_json(report)) if is_json else render_study(report))
    if report.failures:
        raise CheckFailedError(f"The study's checks failed: {'; '.join(report.failures)}.")


def _show(console: Console, found: dict[str, Any]) -> None:
    for key, words in (("well_formed", "without"), ("well_formed_with_wishes", "with")):
        share = found[key]
        console.print(
            f"well-formed {words} preference sentences: {share['share']:.3f} "
            f"[{share['low']:.3f}, {share['high']:.3f}], n = {share['n_answers']}"
        )
    table = Table("objective", "gold mean", "sd", "mean if asked for")
    for name, mean in found["gold_mean"].items():
        row = (mean, found["gold_sd"][name], found["gold_mean_if_asked"][name])
        table.add_row(name, *(f"{value:.3f}" for value in row))
    console.print(table)
    for name, nats in found["excess_nats"].items():
        console.print(
            f"nats per answer above the grammar's entropy, {name.replace('_', '-')} topics: "
            f"{nats:.3f} (standard error {found['excess_errors'][name]:.3f})"
        )
    for unit in ("words", "tokens"):
        quantiles = ", ".join(f"{value:.0f}" for value in found[unit])
        console.print(f"{unit} per answer at 0, 5, 50, 95, 100 %: {quantiles}")
