"""How results are printed: one JSON object with `--json`, otherwise lines and tables of it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import typer
from rich.console import Console
from rich.table import Table

from palate.core.files import dump_json

WIDE = 100_000  # characters, more than any table has
LEAST_WIDTH = 24  # characters of a column whose texts are wrapped


def print_result(result: Any, *, is_json: bool) -> None:
    """Print plain data as JSON, or a value a line and then a table for everything that has rows.

    Rows are a list of mappings, or mappings by name. An interval is one value.
    """
    if is_json:
        typer.echo(dump_json(result))
        return
    if not isinstance(result, Mapping):
        _print_table(result)
        return
    named = _flat(cast(Mapping[str, Any], result))
    for name, value in named.items():
        if not _has_rows(value):
            line = f"{name}: {_text_of(value)}"
            Console(highlight=False).print(line, markup=False, soft_wrap=True)
    for name, value in named.items():
        if _has_rows(value):
            _print_table(value, title=name)


def _text_of(value: Any) -> str:
    """A value in a line or a cell; an interval as in `0.25 [0.1, 0.4]`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        named = cast(Mapping[str, Any], value)
        if _is_interval(named):
            return "{estimate:.4g} [{low:.4g}, {high:.4g}]".format(**named)
        return ", ".join(f"{name} {_text_of(one)}" for name, one in named.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text_of(one) for one in cast(Sequence[Any], value))
    return "-" if value is None else str(value)


def _print_table(rows: Any, *, title: str | None = None) -> None:
    by_name = isinstance(rows, Mapping)
    named = rows.items() if isinstance(rows, Mapping) else enumerate(rows, start=1)
    listed = [({"": name} if by_name else {}) | row for name, row in named]
    columns = list(dict.fromkeys(column for row in listed for column in row))
    cells = [[_cell(column, row.get(column)) for column in columns] for row in listed]
    console = Console(highlight=False)
    if not cells:
        console.print("none")
        return
    if not console.is_terminal:  # what is piped is never cut
        console.width = WIDE
    widths = [max(map(len, column)) for column in zip(map(_label, columns), *cells, strict=True)]
    widest = widths.index(max(widths))  # its texts may be wrapped
    left = console.width - 3 * len(widths) - 1 - sum(widths) + widths[widest]
    if left >= min(widths[widest], LEAST_WIDTH):
        table = Table(title=title)
        for place, column in enumerate(columns):
            table.add_column(_label(column), overflow="fold", no_wrap=place != widest)
        for row in cells:
            table.add_row(*row)
        console.print(table, markup=False)
        return
    console.print(*([title] if title else []), style="italic", markup=False)
    for row in cells:  # a value a line, where the columns have no room side by side
        lines = [f"{_label(name)}: {value}" for name, value in zip(columns, row, strict=True)]
        console.print("\n  ".join(lines).removeprefix(": "), markup=False, soft_wrap=True)


def _cell(name: str, value: Any) -> str:
    if name.endswith("_at") and isinstance(value, float):  # seconds since 1970
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M")
    return _text_of(value)


def _flat(named: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their names in words, nested names joined."""
    flat: dict[str, Any] = {}
    for name, value in named.items():
        label = f"{prefix}{_label(name)}"
        is_inner = isinstance(value, Mapping) and not _is_interval(value) and not _has_rows(value)
        flat |= _flat(value, f"{label}: ") if is_inner else {label: value}
    return flat


def _has_rows(value: Any) -> bool:
    if isinstance(value, Mapping):
        rows = list(cast(Mapping[str, Any], value).values())
        return not _is_interval(value) and bool(rows) and all(isinstance(r, Mapping) for r in rows)
    return isinstance(value, list) and bool(value) and all(isinstance(r, Mapping) for r in value)


def _is_interval(value: Mapping[str, Any]) -> bool:
    return {"estimate", "low", "high"} <= value.keys()


def _label(name: str) -> str:
    return name.replace("_", " ")
