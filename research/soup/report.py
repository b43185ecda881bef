"""The study of soups as tables, JSON and a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palate.core.files import write_json, write_text_atomic
from palate.core.seeds import generator_for
from palate.evaluate.plots.charts import Line, lines_figure
from palate.metrics.intervals import Interval, bootstrap_interval
from research.figures import save_png
from research.statistics.bespoke import BespokeShare, bespoke_share

AT_MANY, AT_TEN = 0.90, 0.60  # targets: shares of bespoke after 100 and, with the prior, 10 votes
GIVEN_PREFERENCE = (
    "prompting",
    "rewarded soup",
    "rewarded soup to the budget",
    "reward-space coefficients",
    "Personalized Soups",
    "MOD",
)
MAIN = "parameter soup"
PRIORS = {"prior": "population", "plain": "no", "": "-"}
BASELINES = (*GIVEN_PREFERENCE, "uniform soup", "best single expert", "best of 8 by fitted reward")


def findings(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One finding per way, prior and number of votes, users of all seeds together.

    `gain` and `raw` are shares of bespoke with 95 % intervals over users; `kl_per_token` and
    `well_formed` are means over seeds.
    """
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["way"], row["prior"], row["n"]), []).append(row)
    found: list[dict[str, Any]] = []
    for (method, prior, n), parts in groups.items():
        share = _share(parts, method, prior, n)
        found.append(
            {
                "way": method,
                "prior": prior,
                "n": n,
                "n_users": sum(len(part["utility"]) for part in parts),
                "n_prompts": parts[0]["n_prompts"],
                "utility": float(np.mean([part["utility"] for part in parts])),
                "gain": share.gain.to_json(),
                "raw": share.raw.to_json(),
                "worst": share.worst,
                "gain_at_budget": _share(
                    parts, method, prior, n, ceiling="raised_ceiling"
                ).gain.to_json(),
                "kl_per_token": float(np.mean([part["kl_per_token"] for part in parts])),
                "well_formed": float(np.mean([part["well_formed"] for part in parts])),
                **_mean_of(parts, "acceptance"),
            }
        )
    return found


def failures(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which targets were missed, each in a few words."""
    by_key = {(row["way"], row["prior"], row["n"]): row["gain"]["estimate"] for row in found}
    wrong: list[str] = []
    for n, target in ((100, AT_MANY), (10, AT_TEN)):
        share = by_key.get((MAIN, "prior", n))
        if share is not None and share < target:
            wrong.append(f"the {MAIN} after {n} votes reaches {share:.1%}, not {target:.0%}")
    best = by_key.get((MAIN, "prior", 100), 0.0)
    wrong += [
        f"{method}{f' after {n} votes' if n >= 0 else ''} reaches {share:.1%}, the {MAIN} after "
        f"100 votes {best:.1%}"
        for (method, _, n), share in by_key.items()
        if share > best and method in BASELINES
    ]
    return wrong


def write_report(
    folder: Path, rows: Sequence[Mapping[str, Any]], parts: Mapping[str, Any], *, command: str
) -> str:
    """Write `soup-world.md`, `.json` and `.png` into the folder; returns the Markdown."""
    found = findings(rows)
    text = render(found, parts, command=command)
    content = {"command": command, "findings": found, "failures": failures(found), **parts}
    write_json(folder / "soup-world.json", content)
    save_png(_figure(found), folder / "soup-world.png")
    write_text_atomic(folder / "soup-world.md", text)
    return text


def render(found: Sequence[Mapping[str, Any]], parts: Mapping[str, Any], *, command: str) -> str:
    """All tables as Markdown."""
    n_users = max((row["n_users"] for row in found), default=0)
    lines = [
        "# Soups of the small world against a policy trained for the user",
        "",
        f"`{command}`: {n_users} users the basis was not trained for, their votes simulated from "
        "the gold utility, answers to held-out prompts at temperature 1, gold rules as judge. "
        "Shares are (way - base) / (bespoke - base), sums over users; brackets: 95 % intervals, "
        "users resampled; prompts and draws, which all users and all ways but the implicit soup "
        "share, are not, so figures on eight prompts are rough. KL is of the answers, nats per "
        "token. A cell that is empty was not measured.",
        "",
        *_learned_table(found),
        *_method_table(found),
        *_sweep_table(parts.get("sweep") or []),
        *_gap_table(parts.get("gap") or {}),
        *_placement_table(parts.get("placement") or []),
    ]
    missed = failures(found)
    lines += ["Missed: " + "; ".join(missed) + "." if missed else "All targets were met.", ""]
    return "\n".join(lines)


def _learned_table(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """After every number of votes: against bespoke as trained, and enlarged to the same budget."""
    counts = sorted({row["n"] for row in found if row["n"] >= 0})
    head = [
        "| way | prior | " + " | ".join(str(n) for n in counts) + " | KL at the last | worst |",
        "|---|---|" + "---|" * (len(counts) + 2),
    ]
    lines: list[str] = []
    titles = {
        "gain": "## Percent of bespoke after so many comparisons",
        "gain_at_budget": "## The same against bespoke experts enlarged to the soups' budget",
    }
    for field, title in titles.items():
        lines += [title, "", *head]
        for method, prior in dict.fromkeys((r["way"], r["prior"]) for r in found if r["n"] >= 0):
            cells = {
                row["n"]: row for row in found if (row["way"], row["prior"]) == (method, prior)
            }
            last = cells[max(cells)]
            shown = [_percent(cells[n][field]) if n in cells else "" for n in counts]
            name = PRIORS[prior]
            lines.append(
                f"| {method} | {name} | {' | '.join(shown)} | {_kl(last)} | "
                f"{100 * last['worst']:.0f} |"
            )
        lines.append("")
    return lines


def _method_table(found: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "## Methods that do not learn",
        "",
        "All but base and uniform soup are given the preference; no vote is used. Learners after "
        "100 votes stand below them.",
        "",
        "| method | prompts | gain, % of bespoke | raw, % of bespoke | KL per token "
        "| well-formed |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['way']} | {row['n_prompts']} | {_percent(row['gain'])} | {_percent(row['raw'])} | "
        f"{_kl(row)} | {row['well_formed']:.3f} |"
        for row in found
        if row["n"] < 0
    ]
    last = [row for row in found if row["n"] == 100]
    lines += [
        f"| {row['way']}, {PRIORS[row['prior']]} prior, 100 votes | {row['n_prompts']} | "
        f"{_percent(row['gain'])} | {_percent(row['raw'])} | {_kl(row)} | "
        f"{row['well_formed']:.3f} |"
        for row in last
    ]
    accepted = [row for row in last if "acceptance" in row]
    lines += [""] + [
        f"Implicit draws accepted, {PRIORS[row['prior']]} prior, 100 votes: "
        f"{100 * row['acceptance']:.1f} % of the base's proposals; their KL is that of the "
        "explicit soup and was not measured again."
        for row in accepted
    ]
    return [*lines, ""]


def _sweep_table(sweep: Sequence[Mapping[str, Any]]) -> list[str]:
    if not sweep:
        return []
    lines = [
        "## How many experts",
        "",
        f"Nested greedy subsets of one basis, seed {sweep[0]['seed']}, 100 comparisons with the "
        f"prior, parameter soup, {sweep[0]['n_prompts']} prompts.",
        "",
        "| experts | effective rank at 90 / 99 / 99.9 % | gain, % of bespoke | KL per token |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['n_experts']} | {' / '.join(str(v) for v in row['effective_rank'].values())} | "
        f"{_percent(row['gain'])} | {row['kl_per_token']:.3f} |"
        for row in sweep
    ]
    return [*lines, ""]


def _gap_table(gap: Mapping[str, Any]) -> list[str]:
    if not gap:
        return []
    lines = [
        "## Output soup against parameter soup",
        "",
        f"The same coefficients, pooled by outputs and by parameters, at {gap['n_tokens']} tokens "
        f"of the base's answers; seed {gap['seed']}, six mixtures of twelve experts each.",
        "",
        "| mixture | strength | KL to the base | KL output to parameter | total variation, mean "
        "(worst mixture) |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['mixture']} | {row['strength']:g} | {row['kl_to_base']:.4f} | {row['kl']:.4f} | "
        f"{row['distance']:.3f} ({row['distance_worst']:.3f}) |"
        for row in sorted(gap["rows"], key=lambda row: (row["mixture"], row["strength"]))
    ]
    drawn = gap["implicit"]
    lines += [
        "",
        f"Implicit against explicit: chi-square {drawn['statistic']:.1f} on "
        f"{drawn['freedom']:.0f} degrees of freedom, p = {drawn['p_value']:.3f}, over "
        f"{drawn['n_draws']:,} tokens; {100 * drawn['acceptance']:.0f} % of proposals accepted.",
        "",
    ]
    return lines


def _placement_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [
        "## Where an expert's adapter sits",
        "",
        "| placement | objective | gain on it | well-formed | own KV bytes per token | decode |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        gain = bootstrap_interval(
            np.array(row["gains"]), generator=generator_for(0, row["placement"], row["objective"])
        )
        lines.append(
            f"| {row['placement']} | {row['objective']} | {gain.estimate:.3f} [{gain.low:.3f}, "
            f"{gain.high:.3f}] | {row['well_formed']:.3f} | {row['own_kv_bytes_per_token']:,} | "
            f"{row['decode_ratio']:.2f}x |"
        )
    return [
        *lines,
        "",
        "Decode: time of answers by one expert of the three in the bank over the base's, in the "
        "same run, interleaved.",
        "",
    ]


def with_shares(sweep: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The sweep with shares of bespoke."""
    found: list[dict[str, Any]] = []
    for row in sweep:
        share = _share([row], "sweep", "", row["n_experts"])
        found.append({**row, "gain": share.gain.to_json()})
    return found


def _share(
    parts: Sequence[Mapping[str, Any]], method: str, prior: str, n: int, *, ceiling: str = "ceiling"
) -> BespokeShare:
    utility, base, high = (
        np.concatenate([part[name] for part in parts]) for name in ("utility", "base", ceiling)
    )
    return bespoke_share(
        utility, base=base, ceiling=high, generator=generator_for(n + 1, "share", method, prior)
    )


def _figure(found: Sequence[Mapping[str, Any]]) -> Any:
    names = {
        ("parameter soup", "prior"): "parameter soup, population prior",
        ("parameter soup", "plain"): "parameter soup, no prior",
        ("best single expert", ""): "best single expert",
        ("best of 8 by fitted reward", "prior"): "best of 8 by fitted reward",
    }
    lines: list[Line] = []
    for (method, prior), name in names.items():
        rows = sorted(
            (r for r in found if (r["way"], r["prior"]) == (method, prior)), key=lambda r: r["n"]
        )
        gains = [row["gain"] for row in rows]
        if rows:
            lines.append(
                Line(
                    name,
                    [row["n"] for row in rows],
                    [100 * gain["estimate"] for gain in gains],
                    [100 * gain["low"] for gain in gains],
                    [100 * gain["high"] for gain in gains],
                )
            )
    known = {row["way"]: 100 * row["gain"]["estimate"] for row in found if row["n"] < 0}
    levels = [
        (f"{method} (given the preference)", known[method])
        for method in GIVEN_PREFERENCE[:2]
        if method in known
    ]
    return lines_figure(
        lines,
        x_label="comparisons of the user",
        y_label="gain over the base, % of bespoke",
        levels=[("bespoke", 100.0), *levels],
    )


def _mean_of(parts: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    values = [part[name] for part in parts if name in part]
    return {name: float(np.mean(values))} if values else {}


def _kl(row: Mapping[str, Any]) -> str:
    """Not measured for implicit draws: it is that of the explicit soup."""
    return "-" if "acceptance" in row else f"{row['kl_per_token']:.3f}"


def _percent(interval: Mapping[str, Any] | Interval) -> str:
    values = interval if isinstance(interval, Mapping) else interval.to_json()
    low, high = 100 * values["low"], 100 * values["high"]
    return f"{100 * values['estimate']:.0f} [{low:.0f}, {high:.0f}]"
