"""`palate bench NAME`: ratios against what a user would pick instead, with the gate beside them."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="Ratios against peers, side by side in one run.")

IsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
]


@app.command()
def bank(overrides: Overrides = None, is_json: IsJson = False) -> None:
    """16 people with 16 coefficient vectors over 8 experts, against peft and a loop."""
    from palate.core.settings import load_settings
    from palate.recipes.bench_bank import BankBenchSettings, bench_bank

    found = bench_bank(load_settings(BankBenchSettings, overrides=overrides or ())).to_json()
    if is_json:
        typer.echo(dump_json(found))
        return
    console = Console()
    gate = found["gate"]
    console.print(
        f"gate: logits within {gate['largest_difference']:.1e} of the dense model "
        f"(limit {gate['limit']:.0e}); extra work in theory {found['theory_overhead_fraction']:.1%}"
    )
    for phase, figures in found["phases"].items():
        _print_phase(console, phase, figures)


def _print_phase(console: Console, phase: str, figures: dict[str, Any]) -> None:
    table = Table(phase, "minimum ms", "median ms", "bank is faster by", title_justify="left")
    for name, ratio in figures["times_faster_than"].items():
        table.add_row(
            name,
            f"{1000 * figures['minimum_seconds'][name]:.2f}",
            f"{1000 * figures['median_seconds'][name]:.2f}",
            f"{ratio:.2f}x",
        )
    console.print(table)
