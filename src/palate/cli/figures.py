"""Figures by name, nested or not, as a table of two columns or as JSON."""

from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from palate.core.files import dump_json


def print_figures(found: dict[str, Any], *, is_json: bool) -> None:
    """Print what was found; nested names are joined."""
    if is_json:
        typer.echo(dump_json(found))
        return
    table = Table("", "", show_header=False)
    for name, value in _flat(found).items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)


def _flat(found: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in found.items():
        label = f"{prefix}{name}".replace("_", " ")
        flat |= _flat(value, f"{label}: ") if isinstance(value, dict) else {label: value}
    return flat
