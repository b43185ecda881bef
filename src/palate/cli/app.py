"""`palate`: one sub-command per noun. Its module is imported when the command is run."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from palate.cli.exits import run_program

COMMANDS = {  # by name: where the command is, and its line in the help
    "demo": ("palate.cli.demo:demo", "One question for eight users, judged and learned."),
    "build": ("palate.cli.build:build", "Build a library of experts; resumes."),
    "generate": ("palate.cli.generate:generate", "Answer a prompt for a user."),
    "score": ("palate.cli.generate:score", "Log-probabilities of given answers."),
    "serve": ("palate.cli.serve:serve", "Serve a library: OpenAI's API, feedback, and a page."),
    "evaluate": ("palate.cli.evaluate:evaluate", "Methods on one scoreboard."),
    "rewards": ("palate.cli.rewards:app", "Train rewards on pairs, and score texts."),
    "portfolio": ("palate.cli.portfolio:app", "A few policies for all users, with a certificate."),
    "soup": ("palate.cli.soup:app", "Experts blended in parameters or in outputs."),
    "mixture": ("palate.cli.mixture:app", "Experts mixed token by token, under a controller."),
    "users": ("palate.cli.users:app", "The database of users."),
    "keys": ("palate.cli.users:keys", "API keys of programs that speak for users."),
    "doctor": ("palate.cli.doctor:doctor", "What is installed, what is missing, what mends it."),
}


class LazyGroup(TyperGroup):
    """The commands of `COMMANDS`; help imports none of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, imported; `None` where there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        target = getattr(import_module(module), name)
        if isinstance(target, typer.Typer):
            group = typer.main.get_group(target)
            group.name = cmd_name
            return group
        alone = typer.Typer(add_completion=False)
        alone.command(cmd_name)(target)
        return typer.main.get_command(alone)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help from the lines of `COMMANDS`."""
        lines: dict[str, Any] = {
            name: TyperCommand(name, help=line) for name, (_, line) in COMMANDS.items()
        }
        listed = TyperGroup(name=self.name, help=self.help, params=self.params, commands=lines)
        listed.format_help(ctx, formatter)


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        typer.echo(f"palate {version('palate')}")
        raise typer.Exit


@app.callback()
def program(
    is_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Answers as each user prefers them, from a small library of experts on one base model."""


def main() -> None:
    """Run the program; an error of ours is one sentence on standard error and an exit code."""
    run_program(app, name="palate")
