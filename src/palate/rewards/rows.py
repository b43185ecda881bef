"""Rows of files that users bring: JSONL, or parquet as Hugging Face datasets are kept."""

from pathlib import Path
from typing import Any

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.files import read_jsonl, require_file

PARQUET = ".parquet"


def read_rows(path: Path, *, what: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and how to name each in a message.

    Args:
        path: A JSONL file, or a parquet file by its ending.
        what: What to call it in messages.

    Raises:
        InvalidInputError: the file is missing, or not what its ending says.
        MissingExtraError: it is parquet, and datasets is not installed.
    """
    if path.suffix != PARQUET:
        rows = read_jsonl(path, what=what)
        lines = path.read_text(encoding="utf-8").split("\n")
        numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
        return rows, [f"Line {number} of the {what} {str(path)!r}" for number in numbers]
    rows = _parquet(require_file(path, what=what), what=what)
    return rows, [f"Row {n} of the {what} {str(path)!r}" for n in range(1, len(rows) + 1)]


def _parquet(path: Path, *, what: str) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet  # with datasets; not needed for JSONL
    except ImportError as error:
        raise MissingExtraError(
            f"The {what} {str(path)!r} is parquet, which needs datasets; run pip install "
            "palate[train]."
        ) from error
    try:
        return parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidInputError(
            f"The {what} {str(path)!r} is not parquet ({reason}); write it again."
        ) from error
