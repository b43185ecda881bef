"""What the command `python -m research.board` does with its options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError
from palate.core.files import dump_json, read_json, write_json
from palate.core.progress import note
from palate.core.settings import load_settings
from research.board.comparisons import require_unseen
from research.board.estimate import estimate
from research.board.made_for import require_clean_judges, require_made_for
from research.board.methods import entrants, require_names
from research.board.report import About, content_of, write_report
from research.board.settings import BoardSettings
from research.board.users import USERS
from research.board.verdicts import LanguageJudge, judge_rows
from research.board.work import Board, listed, missing_jobs, run_board

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


@dataclass(frozen=True)
class Asked:
    """How the board is run, which changes no row."""

    only: tuple[str, ...] = ()  # methods to answer with, the base beside them; none: all
    n_workers: int = 1
    judge_url: str | None = None  # of a language model that judges
    judge_model: str = ""
    judge_requests: int = 0  # most that it is ever sent


def carry_out(
    settings: BoardSettings, out: Path, asked: Asked, *, is_plan: bool
) -> tuple[dict[str, Any], str] | None:
    """The report as plain data and as Markdown; `None` where only the estimate is printed.

    Raises:
        InvalidInputError: the folder holds rows of another board, or a part cannot be read.
        ProviderError: the language model failed.
    """
    board = Board(settings, out)
    some = [one for one in listed(board) if not asked.only or one.name in (*asked.only, "base")]
    jobs = missing_jobs(board, some)
    sentence = estimate(board, some, jobs).sentence(asked.n_workers, len(jobs))
    note(f"{len(some)} methods. {sentence}")
    if is_plan:
        return None
    store_settings(settings, out)
    for number in range(len(settings.libraries)):
        parts = board.parts(number)
        require_made_for(parts, users=Path(settings.users or USERS))
        require_clean_judges(board.parts(0).library, parts.library, number=number)
        require_unseen([one.text for one in parts.prompts[0]], parts.library)
    run_board(board, some, n_workers=asked.n_workers)
    rates: dict[str, Any] = {}
    if asked.judge_url is not None:
        judge = LanguageJudge.connect(asked.judge_url, asked.judge_model, asked.judge_requests, out)
        rates = judge_rows(board, judge)
    served = {one.name for one in listed(board)}
    missing = [name for name in settings.methods or tuple(entrants()) if name not in served]
    parts = board.parts(0)
    about = About(settings, parts.users, parts.judges, missing, rates)
    content = content_of(board.rows, board.facts, about)
    return content, write_report(content, out)
