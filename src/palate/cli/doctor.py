"""`palate doctor`: what is installed, what is missing, and the commands that mend it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palate.cli import options
from palate.cli.exits import CHECK_FAILED
from palate.core.files import dump_json


def doctor(
    library: Annotated[
        Path, typer.Argument(help="Folder or name of the library to be served.")
    ] = Path("smollm2-135m"),
    database: Annotated[
        str,
        typer.Option(
            envvar="PALATE_DATABASE", help="Database of users that will be served.", metavar="URL"
        ),
    ] = "users.db",
    is_json: options.IsJson = False,
) -> None:
    """What this machine has and lacks; exit code 1 where serving would need something more."""
    from palate.library.doctor import examine

    checks = examine(library, database=database)
    is_ready = not any(check.state == "missing" for check in checks)
    if is_json:
        typer.echo(dump_json({"is_ready": is_ready, "checks": [*map(vars, checks)]}))
    else:
        table = Table("", "part", box=None, padding=(0, 1, 0, 0))
        table.add_column("what", overflow="fold")
        for check in checks:
            style = {"ok": "", "absent": "dim", "missing": "bold"}[check.state]
            table.add_row(check.state, check.part, check.what, style=style)
        Console(highlight=False).print(table, markup=False)
        for check in (check for check in checks if check.mend):
            typer.echo(f"{check.part}: {check.mend}")
        typer.echo("ready to serve" if is_ready else "not ready to serve")
    if not is_ready:
        raise typer.Exit(CHECK_FAILED)
