"""`palate soup`: experts blended in parameters or in outputs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import CoefficientsText, IsJson, numbers_by_name
from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="Experts blended in parameters or in outputs.")


@app.command()
def merge(
    library: Annotated[Path, typer.Argument(help="Folder of a library.")],
    coefficients: CoefficientsText = None,
    out: Annotated[Path, typer.Option(help="New folder for the adapter.")] = Path("adapter"),
    rank: Annotated[
        int | None, typer.Option(help="Compress to this rank; exact without it.")
    ] = None,
    is_json: IsJson = False,
) -> None:
    """One adapter that peft and vLLM load: the exact sum of experts with these coefficients."""
    from palate.recipes.soup_merge import merge_soup

    named = numbers_by_name(coefficients, what="coefficients")
    found = merge_soup(library, named or {}, out=out, rank=rank)
    if is_json:
        typer.echo(dump_json(vars(found)))
        return
    exact = "exact" if rank is None else f"relative error {found.relative_error:.2e} at most"
    typer.echo(f"{found.folder}: {found.n_layers} layers, rank {found.rank}, {exact}")


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
