"""Figures of a board's report, computed anew from its rows by other code.

    python -m research.board.check out/board

It reads `rows.jsonl`, truths and `board.json`, uses nothing of the code of the report, and
compares utilities, gains, win rates, costs, gains by shape and turns, the questions, average
pairwise win rates, what is gained over the prompt and by words with comparisons, gains of winners,
and Holm's adjustment.
Intervals come from `palate.metrics`, whose coverage `research.statistics.check` measures.
"""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.core.errors import CheckFailedError
from research.command_line import IsJson, run

CLOSE = 1e-6
TIE = 0.1  # deviations
HERE = Path(__file__).parent
Key = tuple[Any, ...]


def _lines(path: Path) -> list[str]:
    """The rows of a file; a text may hold separators at which `splitlines` would break it."""
    return [line for line in path.read_text().split("\n") if line.strip()]


def recomputed(folder: Path) -> dict[str, float]:
    """Name of a figure to its value from the rows."""
    report = json.loads((folder / "board.json").read_text())
    source = Path(report["settings"]["users"] or HERE / "users.jsonl")
    lines = [json.loads(line) for line in _lines(source)]
    truth = {row["name"]: row["truth"] for row in lines[: report["settings"]["n_users"]]}
    shape = {row["name"]: row["shape"] for row in lines}
    rows: dict[Key, dict[str, Any]] = {}
    for line in _lines(folder / "rows.jsonl"):
        row = json.loads(line)
        key = tuple(row[k] for k in ("method", "user", "prompt", "turns", "seed", "library"))
        if row["user"] in truth:
            rows.setdefault(key, row)
    values = _utilities(rows, truth)
    figures: dict[str, float] = {}
    for method in dict.fromkeys(key[0] for key in rows):
        own = {key[1:]: value for key, value in values.items() if key[0] == method}
        base = {key[1:]: value for key, value in values.items() if key[0] == "base"}
        single = {key: value for key, value in own.items() if key[2] == 0}
        figures[f"utility {method}"] = _mean(list(single.values()))
        mine = [row for key, row in rows.items() if key[0] == method and key[3] == 0]
        figures[f"passes {method}"] = _mean([row["n_passes"] for row in mine])
        figures[f"prompt_tokens {method}"] = _mean([row["n_prompt_tokens"] for row in mine])
        if method == "base":
            continue
        gaps = {key: value - base[(*key[:4], 0)] for key, value in own.items() if _has(base, key)}
        alone = [gap for key, gap in gaps.items() if key[2] == 0]
        figures[f"gain {method}"] = _mean(alone)
        wins = [1.0 if gap > TIE else 0.0 if gap < -TIE else 0.5 for gap in alone]
        figures[f"wins {method}"] = _mean(wins)
        for turns in {key[2] for key in gaps} - {0}:
            after = [gap for key, gap in gaps.items() if key[2] == turns]
            figures[f"after {turns} earlier turns {method}"] = _mean(after)
        by_shape: dict[str, list[float]] = defaultdict(list)
        for key, gap in gaps.items():
            if key[2] == 0:
                by_shape[f"{shape[key[0]]} preferences {method}"].append(gap)
        figures |= {name: _mean(some) for name, some in by_shape.items()}
    return figures | _compared(values, report, shape)


def _compared(
    values: dict[Key, float], report: dict[str, Any], shape: dict[str, str]
) -> dict[str, float]:
    """Differences of two methods, and mean win rates against all others."""
    by_method: dict[str, dict[Key, float]] = defaultdict(dict)
    for key, value in values.items():
        by_method[key[0]][key[1:]] = value
    figures: dict[str, float] = {}
    for name, one in {_question(one): one for one in _asked(report)}.items():
        gaps = _gaps(by_method[one["first"]], by_method[one["second"]])
        kept = [gap for key, gap in gaps.items() if _is_in(key, one["where"], shape)]
        figures[name] = _mean(kept)
    for first, own in by_method.items():
        rates: list[float] = []
        for second, other in by_method.items():
            gaps = [gap for key, gap in _gaps(own, other).items() if key[2] == 0]
            if second != first and gaps:
                wins = [1.0 if gap > TIE else 0.0 if gap < -TIE else 0.5 for gap in gaps]
                rates.append(_mean(wins))
        figures[f"pairwise {first}"] = _mean(rates)
    return figures


def _question(one: dict[str, Any]) -> str:
    return f"question {one['first']} {one['second']} {one['where']}"


def _asked(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every comparison of two methods that the report has, with its estimate."""
    alone = "all single prompts"
    asked: list[dict[str, Any]] = list(report["questions"])
    asked += [
        {**one["versus_prompt"], "first": one["name"], "second": "prompt", "where": alone}
        for one in report["methods"]
        if one["versus_prompt"]
    ]
    for one in report["words_and_comparisons"]:
        over = {**one["over"], "base": one["gain"]}
        asked += [
            {**difference, "first": one["method"], "second": other, "where": alone}
            for other, difference in over.items()
            if difference
        ]
    for row in report["winners"]:
        fixed = {"second": "base", "where": row["where"]}
        best = [row[name] for name in row if name != "where" and row[name]]
        asked += [{**fixed, "first": one["method"], "estimate": one["gain"]} for one in best]
    return asked


def _gaps(first: dict[Key, float], second: dict[Key, float]) -> dict[Key, float]:
    """Differences where both answered; the first library's cell stands for one that is missing."""
    gaps: dict[Key, float] = {}
    for key in {*first, *second}:
        own, other = (some.get(key, some.get((*key[:4], 0))) for some in (first, second))
        if own is not None and other is not None:
            gaps[key] = own - other
    return gaps


def _is_in(key: Key, where: str, shape: dict[str, str]) -> bool:
    if where.startswith("after "):
        return key[2] == int(where.split()[1])
    return key[2] == 0 and where in ("all single prompts", f"{shape[key[0]]} preferences")


def _has(base: dict[Key, float], key: Key) -> bool:
    return (*key[:4], 0) in base


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _utilities(rows: dict[Key, dict[str, Any]], truth: dict[str, Any]) -> dict[Key, float]:
    """The truth times judges in deviations of the base's answers to single prompts."""
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for key, row in rows.items():
        if key[0] == "base" and key[3] == 0:
            for judge in ("meaning", "form"):
                for objective, value in row[judge].items():
                    seen[judge, objective].append(value)
    scale: dict[tuple[str, str], tuple[float, float]] = {}
    for name, values in seen.items():
        centre = _mean(values)
        spread = math.sqrt(_mean([(value - centre) ** 2 for value in values]))
        scale[name] = (centre, max(spread, 0.1))
    result: dict[Key, float] = {}
    for key, row in rows.items():
        total = 0.0
        for objective, weight in truth[key[1]].items():
            judged = [
                (row[judge][objective] - scale[judge, objective][0]) / scale[judge, objective][1]
                for judge in ("meaning", "form")
                if objective in row[judge]
            ]
            total += weight * _mean(judged)
        result[key] = total
    return result


def reported(folder: Path) -> dict[str, float]:
    """The same figures as the report has them."""
    report = json.loads((folder / "board.json").read_text())
    figures: dict[str, float] = {}
    for one in report["methods"]:
        name = one["name"]
        for quantity in ("passes", "prompt_tokens"):
            figures[f"{quantity} {name}"] = one[quantity]
        for quantity in ("utility", "gain"):
            if one[quantity] is not None:
                figures[f"{quantity} {name}"] = one[quantity]["estimate"]
        if one["wins"] is not None:
            figures[f"wins {name}"] = one["wins"]["ties_half"]["estimate"]
    for where, means in report["shape_means"].items():
        if where != "all single prompts":
            figures |= {f"{where} {name}": value for name, value in means.items()}
    rates = report["pairwise"]
    figures |= {f"pairwise {name}": own["ties_half"] for name, own in rates.items()}
    return figures | {_question(one): one["estimate"] for one in _asked(report)}


def differing(folder: Path) -> list[str]:
    """Sentences on figures that the rows do not give, and on p-values that Holm does not."""
    mine, theirs = recomputed(folder), reported(folder)
    faults = [
        f"{name}: the report has {value:.6f}, the rows give {mine.get(name, math.nan):.6f}"
        for name, value in theirs.items()
        if not abs(value - mine.get(name, math.nan)) <= CLOSE
    ]
    report = json.loads((folder / "board.json").read_text())
    tables = {
        "gains": [one["gain"] for one in report["methods"] if one["gain"]],
        "questions": report["questions"],
        "over the prompt": [one["versus_prompt"] for one in report["methods"]],
        "words and comparisons": [
            one for row in report["words_and_comparisons"] for one in row["over"].values()
        ],
    }
    tables = {name: [one for one in table if one] for name, table in tables.items()}
    for name, table in tables.items():
        largest = 0.0
        for place, one in enumerate(sorted(table, key=lambda row: row["p_value"])):
            largest = max(largest, min(1.0, (len(table) - place) * one["p_value"]))
            if abs(one["p_adjusted"] - largest) > CLOSE:
                faults.append(f"{name}: p {one['p_value']:.4g} is adjusted to {largest:.4g}")
    return faults


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of rows and report.")] = Path("out/board"),
    *,
    is_json: IsJson = False,
) -> None:
    """Compute the report's figures anew from the rows; exit code 1 where one differs."""
    faults = differing(folder)
    n_figures = len(reported(folder))
    if is_json:
        typer.echo(json.dumps({"n_figures": n_figures, "faults": faults}))
    else:
        typer.echo("\n".join([*faults, f"{n_figures - len(faults)} of {n_figures} figures agree."]))
    if faults:
        raise CheckFailedError(f"{len(faults)} figures differ from the rows, first {faults[0]}.")


if __name__ == "__main__":
    run(main)
