"""The check of the statistics as Markdown and JSON: one table per statistic."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from palate.core.files import write_json, write_text_atomic
from research.statistics.cells import LEVEL, N_LOOKS, N_WAYS, POINTS, Count, What
from research.statistics.draws import Shape

LEAST, MOST = 0.93, 0.97  # share of 95 % intervals that may hold the truth
Label = Callable[[Count], str]
TABLES: dict[What, tuple[str, tuple[str, ...], Label]] = {
    "one kind": (
        "Differences, clustered by user; 12 answers a user on average",
        ("users", "answers", "users lean"),
        lambda count: count.cell.shape.outcome,
    ),
    "two kinds": (
        "Differences, clustered by user and prompt; 16 prompts, one answer each",
        ("users", "answers", "users lean", "prompts lean"),
        lambda count: count.cell.shape.outcome,
    ),
    "clusterings": (
        "Differences by what the clustering knows; normal; the first shape is the report's",
        ("users x prompts x seeds", "users lean", "prompts lean"),
        lambda count: f"by {count.cell.clustering}",
    ),
    "rate": (
        "Win rates",
        ("users x prompts x seeds", "users lean", "prompts lean"),
        lambda count: f"rate {count.cell.detail}",
    ),
    "length": (
        "The rate at equal length, clustered by user and prompt",
        ("users x prompts x seeds", "users lean", "prompts lean"),
        lambda _: "rate",
    ),
    "table": (
        f"Any claim in a table of {N_WAYS} ways that are as good as their base (Holm)",
        ("users x prompts x seeds", "users lean", "prompts lean"),
        lambda _: "table",
    ),
    "sequence": (
        f"The test that may be looked at any time, looked at {N_LOOKS:,} times",
        ("values",),
        lambda _: "test",
    ),
    "planted": (
        f"A difference of {POINTS:g} between ways that share what makes 300 prompts easy",
        ("prompts",),
        lambda _: "found",
    ),
}


def write_check(found: Sequence[Count], folder: Path, *, command: str) -> None:
    """Write `statistics.md` and `statistics.json` into the folder."""
    write_json(folder / "statistics.json", [count.to_json() for count in found])
    write_text_atomic(folder / "statistics.md", render_check(found, command=command))


def render_check(found: Sequence[Count], *, command: str) -> str:
    """All tables, in per cent, each share with its standard error."""
    lines = [
        "# What the intervals and tests do where the truth is known",
        "",
        f"`{command}`: made-up comparisons whose mean is known. First number of a cell: 95 % "
        f"intervals that hold it; {LEAST:.0%} to {MOST:.0%} are wanted. Second: comparisons "
        f"without a difference that are called significant; at most {LEVEL:.0%} are. Per cent, "
        "after the sign the standard error; `!` where outside by more than two of them.",
        "",
    ]
    for what, (title, heads, label) in TABLES.items():
        counts = [count for count in found if count.cell.what == what]
        if counts:
            lines += [f"## {title}", "", *_table(counts, heads, label), ""]
    return "\n".join(lines)


def _table(counts: Sequence[Count], heads: Sequence[str], label: Label) -> list[str]:
    columns = list(dict.fromkeys(label(count) for count in counts))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for count in counts:
        rows.setdefault(_place(count, heads), {})[label(count)] = _text(count)
    lines = [_row([*heads, *columns]), _row(["---"] * (len(heads) + len(columns)))]
    lines += [_row([*place, *(cells.get(c, "") for c in columns)]) for place, cells in rows.items()]
    n_repeats = sorted({count.n_repeats for count in counts})
    return [*lines, "", f"n = {', '.join(f'{n:,}' for n in n_repeats)} each."]


def _place(count: Count, heads: Sequence[str]) -> tuple[str, ...]:
    shape = count.cell.shape
    words = {
        "users": str(shape.n_users),
        "prompts": str(shape.n_users),
        "users x prompts x seeds": _size(shape),
        "answers": "as many each" if shape.is_equal else "unequal",
        "users lean": f"{shape.user:g}",
        "prompts lean": f"{shape.prompt:g}",
        "values": str(count.cell.detail),
    }
    return tuple(words[head] for head in heads)


def _size(shape: Shape) -> str:
    if shape.n_prompts:
        return f"{shape.n_users} x {shape.n_prompts} x {shape.n_each}"
    return f"{shape.n_users}, {shape.n_each} answers each"


def _text(count: Count) -> str:
    n = count.n_repeats
    if count.n_unpaired is not None:
        return f"paired {count.n_significant} of {n}, unpaired {count.n_unpaired} of {n}"
    parts: list[str] = []
    if count.n_covered is not None:
        parts.append(_share(count.n_covered / n, n, least=LEAST, most=MOST))
    if count.n_significant is not None:
        parts.append(_share(count.n_significant / n, n, least=0.0, most=LEVEL))
    return "; ".join(parts)


def _share(share: float, n: int, *, least: float, most: float) -> str:
    error = float(np.sqrt(share * (1 - share) / n))
    is_off = share < least - 2 * error or share > most + 2 * error
    return f"{100 * share:.1f} ± {100 * error:.1f}{' !' if is_off else ''}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
