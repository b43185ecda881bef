"""How studies and benchmarks are started: options that they share, and how errors leave them.

A study is a module with a function `main` whose parameters are its options:

    if __name__ == "__main__":
        run(main)
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from palate.cli.exits import run_program
from palate.cli.options import IsJson, Overrides
from palate.cli.printing import print_result
from palate.core.errors import InvalidInputError

__all__ = [
    "DataFolder",
    "DatabaseUrl",
    "IsJson",
    "Overrides",
    "Seed",
    "Seeds",
    "Topics",
    "print_result",
    "program",
    "run",
    "whole_numbers",
]

DataFolder = Annotated[
    Path, typer.Argument(metavar="DATA_DIR", help="Holds items.jsonl and votes.jsonl.")
]
DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database", envvar="PALATE_DATABASE", help="sqlite:///FILE, a path, or postgresql://..."
    ),
]
Seed = Annotated[int, typer.Option(help="Random seed of the run.")]
Seeds = Annotated[str, typer.Option(help="One library each, separated by commas.")]
Topics = Annotated[list[str] | None, typer.Option("--topic", help="Only this topic; repeatable.")]


def whole_numbers(text: str, *, what: str) -> tuple[int, ...]:
    """`0,1,2` as numbers.

    Raises:
        InvalidInputError: a part is not a whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInputError(
            f"The {what} {text!r} are not whole numbers separated by commas, such as 0,1,2."
        ) from error


def program(main: Callable[..., None]) -> typer.Typer:
    """The program of one command that a study's `main` is."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    return app


def run(main: Callable[..., None]) -> None:
    """Run the study of this process: exit code 0, 1 for a failed check, 2 for bad input."""
    spec = sys.modules["__main__"].__spec__
    name = "a study" if spec is None else f"python -m {spec.name}"
    run_program(program(main), name=name)
