"""Curves against comparisons, turns and members; learning beside words and adapters."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palate.core.seeds import generator_for
from research.board.methods import BOTH, entrants
from research.board.tables import Cell, Keep, Tables, alone
from research.board.users import WORDINGS
from research.statistics.bespoke import ratio_interval


def curves(tables: Tables) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Gains over the base against comparisons, earlier turns and members, by method."""
    known = entrants()
    comparisons: dict[str, list[str]] = {}
    for name in known:
        if name in tables and "@" in name:
            comparisons.setdefault(name.partition("@")[0], []).append(name)
    lines = {
        label: [_point(tables, name, known[name].n_comparisons, alone) for name in names]
        for label, names in comparisons.items()
    }
    sizes = [name for name in known if name in tables and name.startswith("portfolio-")]
    members = {
        "portfolio": [_point(tables, name, int(name.rpartition("-")[2]), alone) for name in sizes]
    }
    return {
        "comparisons": _whole(lines),
        "turns": _whole(_turn_lines(tables)),
        "members": _whole(members),
    }


def _whole(
    lines: Mapping[str, Sequence[dict[str, Any] | None]],
) -> dict[str, list[dict[str, Any]]]:
    points = {label: [p for p in line if p is not None] for label, line in lines.items()}
    return {label: line for label, line in points.items() if line}


def _point(tables: Tables, name: str, x: int, keep: Keep) -> dict[str, Any] | None:
    difference = tables.difference(name, "base", keep)
    return None if difference is None else {"x": x, "method": name, **difference.to_json()}


def _turn_lines(tables: Tables) -> dict[str, list[dict[str, Any] | None]]:
    prompts = {row.prompt for row in tables.rows if row.turns}
    turns = sorted({row.turns for row in tables.rows if row.prompt in prompts})
    methods = [name for name in entrants() if any(r.turns for r in tables.by_method.get(name, ()))]
    lines: dict[str, list[dict[str, Any] | None]] = {}
    for name in (one for one in methods if one != "base"):
        lines[name] = []
        for n in turns:

            def keep(cell: Cell, n: int = n) -> bool:
                return cell[2] == n and cell[1] in prompts

            lines[name].append(_point(tables, name, n, keep))
    return lines if len(turns) > 1 else {}


def crossings(tables: Tables) -> list[dict[str, Any]]:
    """For each wording, from how many comparisons on the learned soup is ahead of the prompt.

    The p-values of all wordings are adjusted together, since they stand in one table.
    """
    learned = [name for name in entrants() if name.startswith("soup@") and name in tables]
    rows: list[dict[str, Any]] = []
    wordings = [one for one in WORDINGS if f"prompt:{one}" in tables]
    pairs = [(name, f"prompt:{wording}") for wording in wordings for name in learned]
    compared = tables.compare(pairs, alone)
    for wording in wordings:
        points = [
            {"n_comparisons": entrants()[first].n_comparisons, **one.to_json()}
            for (first, second), one in compared.items()
            if second == f"prompt:{wording}"
        ]
        rows.append(
            {
                "wording": wording,
                "ahead_from": _from_which_on([point["estimate"] > 0 for point in points], points),
                "significantly_from": _from_which_on(
                    [point["verdict"] == "better" for point in points], points
                ),
                "points": points,
            }
        )
    return rows


def _from_which_on(is_so: Sequence[bool], points: Sequence[Mapping[str, Any]]) -> int | None:
    """The fewest comparisons from which on it is so at every point; `None` where it never is."""
    least: int | None = None
    for holds, point in zip(reversed(is_so), reversed(points), strict=True):
        if not holds:
            break
        least = int(point["n_comparisons"])
    return least


WORDS = WORDINGS[0]  # what a described user says
ALONE = (f"prompt:{WORDS}", f"auto:{WORDS}", "auto@10")  # words as a prompt, words, comparisons


def words_and_comparisons(tables: Tables) -> list[dict[str, Any]]:
    """Gains of words, of comparisons and of both, and what both gain over either alone.

    The p-values of these differences are adjusted together.
    """
    both = [name for name, one in entrants().items() if one.knows == BOTH and name in tables]
    pairs = [(name, other) for name in both for other in ALONE if other in tables]
    compared = tables.compare(pairs, alone)
    rows: list[dict[str, Any]] = []
    for name in (one for one in (*ALONE, *both) if one in tables and both):
        gain = tables.difference(name, "base", alone)
        over: dict[str, Any] = dict.fromkeys(ALONE)
        over |= {pair[1]: one.to_json() for pair, one in compared.items() if pair[0] == name}
        rows.append(
            {"method": name, "gain": None if gain is None else gain.to_json(), "over": over}
        )
    return rows


def shares_of_adapters(tables: Tables) -> list[dict[str, Any]]:
    """What the learned soup reaches of the gain of one adapter per user, from as many comparisons.

    Users who have an adapter, by an interval over these users on these prompts; none where the
    interval of the adapters' gain holds zero, since a ratio to it says nothing.
    """
    rows: list[dict[str, Any]] = []
    for n in (10, 100):
        soup, lora = f"soup@{n}", f"lora@{n}"
        if soup not in tables or lora not in tables:
            continue
        gains = [_gains_by_user(tables, name) for name in (soup, lora)]
        users = sorted(gains[0].keys() & gains[1].keys())
        reached, most = (np.array([own[user] for user in users]) for own in gains)
        row: dict[str, Any] = {"n_comparisons": n, "n_users": len(users), "share": None}
        gained = tables.difference(lora, "base", alone)
        if len(users) > 1 and gained is not None and gained.interval.low > 0:
            generator = generator_for(0, "board share", str(n))
            row["share"] = ratio_interval(reached, most, generator=generator).to_json()
        rows.append(row)
    return rows


def _gains_by_user(tables: Tables, method: str) -> dict[str, float]:
    """Mean gain over the base on single prompts."""
    mine, theirs, cells = tables.pairs(method, "base", alone)
    users = np.array([cell[0] for cell in cells])
    return {str(u): float((mine - theirs)[users == u].mean()) for u in dict.fromkeys(users)}
