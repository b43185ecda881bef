"""A replica is killed under load; fails if feedback that was acknowledged is lost."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.core.files import dump_json
from palate.core.settings import load_settings
from research.command_line import IsJson, Overrides, run
from research.preferences.store_faults import require_passed
from research.serving import replicas_under_load
from research.serving.replicas_under_load import ReplicaDrillSettings


def main(
    library: Annotated[Path, typer.Argument(help="What the replicas serve.")],
    *,
    database: Annotated[str, typer.Option(help="postgresql://..., without users.")],
    overrides: Overrides = None,
    is_json: IsJson = False,
) -> None:
    """Kill a replica under load; fails if feedback that was acknowledged is lost."""
    settings = load_settings(ReplicaDrillSettings, overrides=overrides or ())
    found = replicas_under_load.drill_replicas(library, database, settings)
    if is_json:
        typer.echo(dump_json(found))
    else:
        _show(found)
    require_passed(found)


def _show(found: dict[str, Any]) -> None:
    console = Console()
    table = Table("replicas", "requests", "failed", "error rate", "95 %", "p95 seconds")
    for phase, row in found["phases"].items():
        interval = f"{row['low']:.1%} to {row['high']:.1%}"
        table.add_row(
            phase,
            str(row["n"]),
            str(row["n_failed"]),
            f"{row['error_rate']:.1%}",
            interval,
            f"{row['p95_seconds']:.2f}",
        )
    console.print(table)
    console.print(
        f"{found['n_acknowledged']} judgements acknowledged, {found['n_kept']} kept, "
        f"{found['n_lost']} lost, {found['n_twice']} twice; "
        f"{found['n_sent_again_and_found']} sent again that were there already"
    )


if __name__ == "__main__":
    run(main)
