"""Whether the intervals and tests of this package do what they promise."""

from pathlib import Path
from typing import Annotated

import typer

from palate.core.files import dump_json
from research.command_line import IsJson, Seed, run
from research.statistics.cells import check_statistics
from research.statistics.report import render_check, write_check


def main(
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Of each shape.")] = 4000,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the outcome is the same.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder for statistics.md and statistics.json.")
    ] = None,
    is_json: IsJson = False,
) -> None:
    """How often 95 % intervals cover and null comparisons are called significant, by shape."""
    found = check_statistics(n_repeats=repeats, seed=seed, n_workers=workers)
    command = f"python -m research.statistics.check --repeats {repeats} --seed {seed}"
    if out is not None:
        write_check(found, out, command=command)
    rows = [count.to_json() for count in found]
    typer.echo(dump_json(rows) if is_json else render_check(found, command=command))


if __name__ == "__main__":
    run(main)
