"""Answers of a base of the small world to held-out prompts, measured."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from palate.core.files import dump_json
from research.command_line import IsJson, Seed, run
from research.world.base import measure_world
from research.world.prompts import base_folder
from research.world.show import NAnswers, show_measurement


def main(
    folder: Annotated[Path | None, typer.Argument(help="A base; without it, palate's own.")] = None,
    *,
    n_answers: NAnswers = 500,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Well-formed share, gold rewards and lengths of a base's answers to held-out prompts."""
    found = measure_world(folder or base_folder(), n_answers=n_answers, seed=seed).to_json()
    if is_json:
        typer.echo(dump_json(found))
    else:
        show_measurement(Console(), found)


if __name__ == "__main__":
    run(main)
