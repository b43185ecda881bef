"""`palate`: one sub-command per noun, and the way errors leave the program."""

from importlib.metadata import version
from typing import Annotated

import typer

from palate.cli import (
    bridge,
    build,
    demo,
    evaluate,
    generate,
    mixture,
    portfolio,
    rewards,
    scale,
    serve,
    soup,
    users,
)
from palate.cli.exits import run_program

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Answers in each user's taste from a small library of experts on one base model.",
)
app.command()(demo.demo)
app.command()(build.build)
app.command()(generate.generate)
app.command()(generate.score)
app.command()(evaluate.evaluate)
app.command()(serve.serve)
app.add_typer(bridge.app, name="bridge")
app.add_typer(rewards.app, name="rewards")
app.add_typer(portfolio.app, name="portfolio")
app.add_typer(soup.app, name="soup")
app.add_typer(mixture.app, name="mixture")
app.add_typer(users.app, name="users")
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
    """Answers in each user's taste from a small library of experts on one base model."""


def main() -> None:
    """Run the program; an error of ours is one sentence on standard error and an exit code."""
    run_program(app, name="palate")
