"""The fair board: palate's methods and every rival a practitioner would run, on a real model.

    python -m research.board --small                      `make report`: minutes on two cores
    python -m research.board --data ../shared/data        Koala and MT-Bench, all methods: hours
    python -m research.board --small --plan               what it would do, and how long it takes

Rows go into `OUT/rows.jsonl`; a run that was stopped goes on, and a cell is never computed twice.
"""

from os import cpu_count
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.core.errors import InvalidInputError
from palate.core.files import dump_json, read_json, write_json
from palate.core.progress import note
from palate.core.settings import load_settings
from research.board.estimate import estimate
from research.board.methods import entrants, require_names
from research.board.report import About, content_of, write_report
from research.board.settings import BoardSettings
from research.board.verdicts import LanguageJudge, judge_rows
from research.board.work import Board, listed, missing_jobs, run_board
from research.command_line import IsJson, Overrides, run

SETTINGS = "settings.json"
DATA = ("prompts/koala/koala_130.jsonl", "prompts/mt_bench/questions.jsonl")


def settings_of(
    library: list[str] | None,
    data: Path | None,
    *,
    is_small: bool,
    only: tuple[str, ...],
    overrides: list[str] | None,
) -> BoardSettings:
    """The board's settings from the command's options; InvalidInputError where one is wrong."""
    fixed: list[str] = []
    if library:
        fixed.append(f"libraries={dump_json(library, indent=None)}")
    if data is not None:
        fixed.append(f"prompts={dump_json([str(data / name) for name in DATA], indent=None)}")
    base = BoardSettings().small() if is_small else BoardSettings()
    given = [
        f"{key}={dump_json(value, indent=None)}"
        for key, value in base.model_dump(mode="json", exclude_defaults=True).items()
    ]
    settings = load_settings(BoardSettings, overrides=[*given, *fixed, *(overrides or [])])
    require_names((*settings.methods, *settings.turn_methods, *only))
    return settings


def store_settings(settings: BoardSettings, out: Path) -> None:
    """Write the settings beside the rows; InvalidInputError where these are of another board."""
    path = out / SETTINGS
    if path.is_file():
        key = settings.is_row_compatible(read_json(path, what="settings"))
        if key:
            raise InvalidInputError(
                f"The folder {str(out)!r} holds rows of a board with another {key!r}; give a new "
                "folder with --out."
            )
    write_json(path, settings.model_dump(mode="json"))


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
    names = tuple(name for name in only.split(",") if name)
    settings = settings_of(library, data, is_small=is_small, only=names, overrides=overrides)
    n_workers = workers or cpu_count() or 1
    board = Board(settings, out)
    some = [one for one in listed(board) if not names or one.name in (*names, "base")]
    jobs = missing_jobs(board, some)
    note(f"{len(some)} methods. {estimate(board, some, jobs).sentence(n_workers, len(jobs))}")
    if is_plan:
        return
    store_settings(settings, out)
    run_board(board, some, n_workers=n_workers)
    rates: dict[str, Any] = {}
    if judge_url is not None:
        judge = LanguageJudge.connect(judge_url, judge_model, judge_requests, out)
        rates = judge_rows(board, judge)
    served = {one.name for one in listed(board)}
    wanted = settings.methods or tuple(entrants())
    parts = board.parts(0)
    missing = [name for name in wanted if name not in served]
    about = About(settings, parts.users, parts.judges, missing, rates)
    content = content_of(board.rows, board.facts, about)
    markdown = write_report(content, out)
    typer.echo(dump_json(content) if is_json else markdown)


if __name__ == "__main__":
    run(main)
