"""`palate`: one sub-command per noun, and the way errors leave the program."""

import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from palate.cli import (
    bench,
    bridge,
    build,
    demo,
    evaluate,
    generate,
    mixture,
    people,
    portfolio,
    rewards,
    scale,
    serve,
    soup,
    statistics,
    world,
)
from palate.cli.exits import exit_code, require_text, unusable_path
from palate.core.errors import PalateError
from palate.core.extras import missing_extra

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Answers in each person's taste from a small library of experts on one base model.",
)
app.command()(demo.demo)
app.command()(build.build)
app.command()(generate.generate)
app.command()(generate.score)
app.command()(evaluate.evaluate)
app.command()(serve.serve)
app.add_typer(evaluate.judge_app, name="judge")
app.add_typer(bridge.app, name="bridge")
app.add_typer(rewards.app, name="rewards")
app.add_typer(portfolio.app, name="portfolio")
app.add_typer(soup.app, name="soup")
app.add_typer(mixture.app, name="mixture")
app.add_typer(people.app, name="people")
app.add_typer(world.app, name="world")
app.add_typer(bench.app, name="bench")
app.add_typer(statistics.app, name="statistics")
app.add_typer(scale.app, name="scale")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"palate {version('palate')}")
        raise typer.Exit


@app.callback()
def options(
    is_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Answers in each person's taste from a small library of experts on one base model."""


def main() -> None:
    """Run the program; an error of ours is one sentence on standard error and an exit code."""
    try:
        require_text(sys.argv)
        app(prog_name="palate")
    except PalateError as error:
        _leave(error)
    except OSError as error:
        unusable = unusable_path(error)
        if unusable is None:
            raise
        _leave(unusable)
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        _leave(missing)


def _leave(error: PalateError) -> NoReturn:
    typer.echo(f"palate: {error}", err=True)
    sys.exit(exit_code(error))
