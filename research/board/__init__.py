"""The fair board: palate's methods and every rival a practitioner would run, on a real model.

    python -m research.board --small                      `make report`: minutes on two cores
    python -m research.board --data ../shared/data        Koala and MT-Bench, all methods: hours
    python -m research.board --small --plan               what it would do, and how long it takes

Rows go into `OUT/rows.jsonl`; a run that was stopped goes on, and a cell is never computed twice.
"""

from os import cpu_count
from pathlib import Path
from typing import Annotated

import typer

from palate.core.files import dump_json
from research.command_line import IsJson, Overrides


def main(  # noqa: PLR0913  a command's options are its parameters
    *,
    library: Annotated[
        list[str] | None,
        typer.Option(help="Name or folder; repeat for further seeds of what is trained."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with prompts/koala and prompts/mt_bench; else own questions."),
    ] = None,
    is_small: Annotated[bool, typer.Option("--small", help="Few users, prompts, methods.")] = False,
    only: Annotated[
        str, typer.Option(help="Answer with these methods alone, separated by commas.")
    ] = "",
    overrides: Overrides = None,
    judge_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible endpoint of a language model that judges.")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="Its name there.")] = "",
    judge_requests: Annotated[int, typer.Option(min=0, help="Most that it is ever sent.")] = 2000,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one per core.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of rows and report.")] = Path("out/board"),
    is_plan: Annotated[bool, typer.Option("--plan", help="Print the estimate and stop.")] = False,
    is_json: IsJson = False,
) -> None:
    """All methods and their rivals on one library, judged, compared and reported; resumes."""
    from research.board.command import Asked, carry_out, settings_of

    names = tuple(name for name in only.split(",") if name)
    settings = settings_of(library, data, is_small=is_small, only=names, overrides=overrides)
    asked = Asked(names, workers or cpu_count() or 1, judge_url, judge_model, judge_requests)
    result = carry_out(settings, out, asked, is_plan=is_plan)
    if result is not None:
        content, markdown = result
        typer.echo(dump_json(content) if is_json else markdown)
