"""`palate statistics`: whether the intervals and tests of this package do what they promise."""

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.parse import IsJson
from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="Intervals and tests where the truth is known.")


@app.callback()
def statistics() -> None:
    """Intervals and tests where the truth is known."""


@app.command()
def check(
    repeats: Annotated[int, typer.Option(min=1, help="Of each shape.")] = 4000,
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the outcome is the same.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder for statistics.md and statistics.json.")
    ] = None,
    is_json: IsJson = False,
) -> None:
    """How often 95 % intervals cover and null comparisons are called significant, by shape."""
    from palate.recipes.statistics_report import render_check, write_check
    from palate.recipes.statistics_study import check_statistics

    found = check_statistics(n_repeats=repeats, seed=seed, n_workers=workers)
    command = f"palate statistics check --repeats {repeats} --seed {seed}"
    if out is not None:
        write_check(found, out, command=command)
    rows = [count.to_json() for count in found]
    typer.echo(dump_json(rows) if is_json else render_check(found, command=command))
