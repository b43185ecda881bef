"""A plan on paper, printed: the table, what breaks first, where the constants are from."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.core.errors import InvalidInputError
from palate.core.files import dump_json
from palate.core.settings import load_settings
from research.command_line import IsJson, Overrides, run
from research.serving.plan_counts import PlanSettings, plan
from research.serving.plan_of_run import settings_of_run

WIDTH = 140  # of the table
UNITS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def main(
    *,
    model: Annotated[str | None, typer.Option(help="Of the base, such as llama-3.2-1b.")] = None,
    device: Annotated[str | None, typer.Option(help="That answers, such as h200.")] = None,
    run_file: Annotated[
        Path | None,
        typer.Option("--run", help="Run file of palate build, for base, experts, training."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of the plan's settings.")] = None,
    overrides: Overrides = None,
    is_json: IsJson = False,
) -> None:
    """What a thousand to a billion users need, and what breaks first; nothing is run."""
    named = {"model": model, "device": device}
    given = [f"{name}={value}" for name, value in named.items() if value is not None]
    given += overrides or ()
    if run_file is not None and config is not None:
        raise InvalidInputError("Give a run file or a plan's settings, not both.")
    if run_file is not None:
        settings = settings_of_run(run_file, overrides=given)
    else:
        settings = load_settings(PlanSettings, config, overrides=given)
    found = plan(settings)
    if is_json:
        typer.echo(dump_json(found))
    else:
        show_plan(found)


def show_plan(found: dict[str, Any]) -> None:
    """Print the plan."""
    console = Console(width=max(Console().width, WIDTH))
    settings, model, one = found["settings"], found["model"], found["one_device"]
    console.print(
        f"{settings['model']} on {settings['device']}: base {short(model['bytes'])}B, "
        f"{settings['n_experts']} experts {short(model['bytes_of_all_experts'])}B, cache "
        f"{model['cache_bytes_per_token']:,} bytes a token; one device "
        f"{one['answers_together']} answers together, {one['tokens_per_second']:,.0f} tokens a "
        f"second ({found['estimates']})"
    )
    table = Table(
        "users",
        "answers/s",
        "tokens/s",
        "at once",
        "cache",
        "devices",
        "their state",
        "an expert each",
        "feedback/s",
        "feedback rows",
        "database",
        "refit",
    )
    for row in found["rows"]:
        table.add_row(
            short(row["users"]),
            short(row["answers_per_second"]),
            short(row["tokens_per_second"]),
            short(row["answers_at_once"]),
            f"{short(row['cache_bytes'])}B",
            f"{row['devices']:,}",
            f"{short(row['coefficient_bytes'])}B",
            f"{short(row['bytes_of_an_expert_each'])}B",
            short(row["feedback_per_second"]),
            short(row["feedback_rows"]),
            f"{short(row['database_bytes'])}B",
            f"{short(row['refit_seconds'])}s",
        )
    console.print(table)
    library = found["library"]
    console.print(
        f"the library, however many users: {library['library_hours']:.1f} device hours "
        f"({library['rollout_hours']:.2f} for rollouts, {library['expert_hours']:.2f} an expert, "
        f"{library['payoff_hours']:.2f} for the payoff table), "
        f"{short(library['training_bytes'])}B while an expert is trained"
    )
    breaks = Table("one is not enough of", "from users", "then")
    for limit in found["breaks"]:
        breaks.add_row(limit["what"], f"{limit['users']:,.0f}", limit["remedy"])
    console.print(breaks)
    sources = Table("measured", "value", "by", "report")
    for name, constant in found["constants"].items():
        sources.add_row(name, f"{constant['value']:,g}", constant["command"], constant["report"])
    console.print(sources)


def short(value: float) -> str:
    """Three digits and a unit: 12300 is 12.3k."""
    for size, letter in UNITS:
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


if __name__ == "__main__":
    run(main)
