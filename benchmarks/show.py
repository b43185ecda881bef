"""How a race is printed: the gate first, then one table per phase."""

from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from palate.core.files import dump_json


def show_race(result: dict[str, Any], *, is_json: bool) -> None:
    """A race in phases: gate first, then one table per phase."""
    if is_json:
        typer.echo(dump_json(result))
        return
    console = Console()
    print_gate(console, result["gate"])
    if "theory_overhead_fraction" in result:
        console.print(
            f"extra work in theory {result['theory_overhead_fraction']:.1%} of the base's"
        )
    for phase, figures in result["phases"].items():
        _print_phase(console, phase, figures)
    if "head_experts_step_over_base" in result:
        ratio = result["head_experts_step_over_base"]
        console.print(f"experts on the head: {ratio:.2f}x a step of the base alone")


def print_gate(console: Console, gate: dict[str, Any]) -> None:
    """Largest difference to the result that a race must give, beside its limit."""
    console.print(
        f"gate: largest difference {gate['largest_difference']:.1e}, limit {gate['limit']:.0e}"
    )


def _print_phase(console: Console, phase: str, figures: dict[str, Any]) -> None:
    table = Table(phase, "minimum ms", "median ms", "ours is faster by", title_justify="left")
    for name, ratio in figures["times_faster_than"].items():
        table.add_row(
            name,
            f"{1000 * figures['minimum_seconds'][name]:.2f}",
            f"{1000 * figures['median_seconds'][name]:.2f}",
            f"{ratio:.2f}x",
        )
    console.print(table)
