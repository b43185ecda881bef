"""Differences of methods over the users of several boards together.

    python -m research.board.pooled out/board out/board-turns --pair auto,prompt

Boards of one library and the same prompts, each with users of its own: rows of one sampling seed
are put together, utilities are in deviations of all the base's answers, and intervals are clustered
by user and prompt, as on a board. Rows that are packed (`rows.jsonl.xz`) are read as they are.
P-values are of one question each and not adjusted.
"""

import lzma
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.core.errors import InvalidInputError
from research.board.rows import ROWS, Row, load
from research.board.tables import Cell, Tables, tables_of
from research.board.users import USERS, load_users
from research.command_line import IsJson, print_result, run

N_USERS = 200  # of the board's file
JUDGES = {"all": ("meaning", "form"), "form": ("form",)}


def main(
    boards: Annotated[list[Path], typer.Argument(help="Folders of boards.")],
    *,
    pair: Annotated[list[str] | None, typer.Option(help="Two methods, by comma.")] = None,
    seed: Annotated[int, typer.Option(help="Of the boards.")] = 0,
    is_json: IsJson = False,
) -> None:
    """Print how far the first method of each pair is ahead, by earlier turns and by judges."""
    pairs = [tuple(one.split(",")) for one in pair or ["auto,prompt", "auto,base", "prompt,base"]]
    print_result(pooled([rows_in(one, seed=seed) for one in boards], pairs), is_json=is_json)


def rows_in(folder: Path, *, seed: int) -> list[Row]:
    """A board's rows of one seed on its first library.

    Raises:
        InvalidInputError: the folder has none.
    """
    path, packed = folder / ROWS, folder / f"{ROWS}.xz"
    if path.is_file():
        rows = load(path, Row)
    elif packed.is_file():
        with tempfile.TemporaryDirectory() as place:
            unpacked = Path(place) / ROWS
            unpacked.write_bytes(lzma.decompress(packed.read_bytes()))
            rows = load(unpacked, Row)
    else:
        raise InvalidInputError(f"The folder {str(folder)!r} has no {ROWS}; give a board's folder.")
    return [row for row in rows if row.seed == seed and not row.library]


def pooled(boards: Sequence[Sequence[Row]], pairs: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """Differences by judges, pair and turns.

    Raises:
        InvalidInputError: a user is in two boards, or is none of the board's file.
    """
    names = [{row.user for row in rows} for rows in boards]
    both = set[str]().union(*names)
    if len(both) < sum(len(own) for own in names):
        raise InvalidInputError("A user is on two of the boards; give boards of different users.")
    first = boards[0][0] if boards and boards[0] else None
    if first is None:
        raise InvalidInputError("The first board has no rows of this seed; give another --seed.")
    users = [
        user
        for user in load_users(USERS, objectives=list({**first.meaning, **first.form}), n=N_USERS)
        if user.name in both
    ]
    if len(users) < len(both):
        raise InvalidInputError(f"Some of the {len(both)} users are not in {str(USERS)!r}.")
    wanted = {"base", *(name for pair in pairs for name in pair)}
    rows = [row for own in boards for row in own if row.method in wanted]
    found: dict[str, Any] = {"n_users": len(users)}
    for label, judges in JUDGES.items():
        tables = tables_of(rows, users, judges=judges)
        found[label] = {
            f"{first} over {second}, {turns} turns": one
            for first, second in pairs
            for turns in sorted({row.turns for row in rows})
            if (one := _difference(tables, first, second, turns)) is not None
        }
    return found


def _difference(tables: Tables, first: str, second: str, turns: int) -> dict[str, Any] | None:
    def keep(cell: Cell) -> bool:
        return cell[2] == turns

    one = tables.difference(first, second, keep)
    return None if one is None else {**one.interval.to_json(), "p": one.p_value}


if __name__ == "__main__":
    run(main)
