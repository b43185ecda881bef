"""The base of the small world, trained from nothing and measured."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from palate.core.files import dump_json
from palate.core.settings import load_settings
from research.command_line import IsJson, Overrides, run
from research.world.base import train_world
from research.world.pretrain import PretrainSettings
from research.world.show import NAnswers, show_measurement


def main(
    *,
    out: Annotated[Path, typer.Option(help="New folder for the base.")],
    settings: Annotated[Path | None, typer.Option(help="YAML of pre-training settings.")] = None,
    overrides: Overrides = None,
    n_answers: NAnswers = 500,
    is_json: IsJson = False,
) -> None:
    """Train tokenizer and base on the grammar, from nothing, and measure them."""
    chosen = load_settings(PretrainSettings, settings, overrides=overrides or ())
    outcome = train_world(chosen, out=out, n_answers=n_answers).to_json()
    if is_json:
        typer.echo(dump_json(outcome))
        return
    console = Console()
    console.print(
        f"{outcome['folder']}: {outcome['parameters']:,} parameters, "
        f"{outcome['train_seconds']:.0f} s, loss {outcome['loss']:.3f}"
    )
    show_measurement(console, outcome["measurement"])


if __name__ == "__main__":
    run(main)
