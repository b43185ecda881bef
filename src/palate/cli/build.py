"""`palate build RUN.yaml`: pairs or rewards and a base become a library."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import IsJson, Overrides
from palate.cli.portfolio import print_grown
from palate.core.files import dump_json


def build(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="What to build from what.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the library; default: out/ and the file's name.")
    ] = None,
    overrides: Overrides = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Train this expert alone, as one of several jobs.")
    ] = None,
    is_prepared_only: Annotated[
        bool, typer.Option("--prepare", help="Make rollouts and rewards, and no expert.")
    ] = False,
    is_json: IsJson = False,
) -> None:
    """Build a library of experts; run it again after an interruption and it goes on."""
    from palate.build.library import build_library
    from palate.build.run_file import RunSettings
    from palate.core.settings import load_settings

    settings = load_settings(RunSettings, run_file, overrides=overrides or ())
    chosen = only or ([] if is_prepared_only else None)
    folder = out or Path("out") / run_file.stem
    found = build_library(settings, out=folder, only=chosen).to_json()
    if is_json:
        typer.echo(dump_json(found))
        return
    console = Console()
    _print_rewards(console, found["rewards"])
    table = Table("expert", "wants", "mean tilt", "sd", "trained now")
    for expert in found["experts"]:
        wants = [f"{share:+.2f} {name}" for name, share in expert["direction"].items() if share]
        table.add_row(
            expert["name"],
            ", ".join(wants),
            f"{expert['tilt_mean']:.3f}",
            f"{expert['tilt_sd']:.3f}",
            "yes" if expert["is_trained_now"] else "no",
        )
    console.print(table)
    if found["portfolio"] is not None:
        print_grown(found["portfolio"])
    console.print(f"{found['library']}: {len(found['experts'])} experts, {found['seconds']} s")


def _print_rewards(console: Console, rewards: dict[str, Any]) -> None:
    for name, found in rewards.items():
        right = found["accuracy"]
        doubt = "" if found["is_above_length"] else ": no better than length, beware"
        console.print(
            f"reward {name}: {right['estimate']:.3f} [{right['low']:.3f}, {right['high']:.3f}] of "
            f"{right['n']} held-out pairs right, by length alone {found['by_length']:.3f}{doubt}",
            markup=False,
        )
