"""How a measurement of the small world's base is printed."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

NAnswers = Annotated[int, typer.Option("--answers", help="Answers in each measured sample.")]


def show_measurement(console: Console, found: dict[str, Any]) -> None:
    """Well-formed shares, gold rewards, nats above the grammar's entropy, lengths."""
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
