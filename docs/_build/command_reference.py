"""The reference of `palate`'s commands, made from the commands themselves."""

import re
from collections.abc import Iterator
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

from palate.cli.app import app

WORDS = {"str": "TEXT", "list": "TEXT", "int": "NUMBER", "float": "NUMBER"}  # of types


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that can be run, by its words, groups left out."""
    yield from _below("palate", get_command(app))


def _below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(command, TyperGroup):
        yield words, command
        return
    context = command.context_class(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        yield from _below(f"{words} {name}", inner)


def command_page() -> str:
    """The page."""
    lines = [
        "# Commands",
        "",
        "Made from the commands themselves; `palate COMMAND --help` prints the same. Exit codes: 0",
        "done, 1 a stated check failed, 2 bad input, one sentence on standard error. Studies and",
        "benchmarks: [commands](../docs/commands.md).",
        "",
    ]
    for words, command in commands():
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        options = [one for one in command.params if one.param_type_name == "option"]
        places = " ".join(_place(one) for one in arguments)
        lines += [f"## `{words}`", "", _text(command.help), ""]
        lines += ["```text", f"{words} {places} [OPTIONS]".replace("  ", " "), "```", ""]
        rows = [
            [f"`{one.name.upper()}`", _text(getattr(one, "help", None)), ""] for one in arguments
        ]
        rows += [[_names(one), _text(one.help), _default(one)] for one in options]
        lines += ["| argument or option | what | default |", "|---|---|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    return "\n".join(lines)


def _place(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _names(option: Any) -> str:
    shown = ", ".join(f"`{one}`" for one in [*option.opts, *option.secondary_opts])
    if option.is_flag:
        return shown
    kind = getattr(option.type_descriptor.annotation, "__name__", "text")
    return f"{shown} `{option.metavar or WORDS.get(kind, kind.upper())}`"


def _default(option: Any) -> str:
    value = option.default
    if option.required:
        return "must be given"
    if value is None or value is False or value in ((), []):
        return ""
    return f"`{value}`".replace("|", "\\|")


def _text(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip().replace("|", "\\|")
