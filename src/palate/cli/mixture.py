"""`palate mixture`: the controller that mixes experts token by token."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="Experts mixed token by token, under a controller.")

IsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def yardstick(
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    is_json: IsJson = False,
) -> None:
    """Controllers on token trees with known answers; fails when a target is missed."""
    from palate.recipes.mixture_yardstick import run_yardstick

    console = Console(stderr=is_json)
    report = run_yardstick(
        out=out, on_tree=lambda done, n: console.print(f"tree {done} of {n}", highlight=False)
    )
    if is_json:
        typer.echo(dump_json(report.to_json()))
    else:
        table = Table("column", "mean over trees")
        for name, value in report.means.items():
            table.add_row(name, f"{value:.4f}")
        console.print(table)
    report.require_met()
