"""`palate soup`: experts blended in parameters or in outputs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="Experts blended in parameters or in outputs.")

IsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def yardstick(
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    is_json: IsJson = False,
) -> None:
    """Coefficients on token trees with known answers; fails when a check does not hold."""
    from palate.recipes.soup_yardstick import run_yardstick

    console = Console(stderr=is_json)
    report = run_yardstick(
        out=out, on_seed=lambda done, n: console.print(f"world {done} of {n}", highlight=False)
    )
    if is_json:
        typer.echo(dump_json(report.to_json()))
    else:
        table = Table("way", "experts", "comparisons", "percent of the possible gain", "lowest")
        for (way, size, n), cell in report.cells.items():
            shown = f"{cell.estimate:.1f} [{cell.low:.1f}, {cell.high:.1f}]"
            table.add_row(way, str(size), str(n), shown, f"{report.worst[way, size, n]:.1f}")
        console.print(table)
    report.require_met()
