"""What the rows say: the cost frontier, who wins where, curves, questions put beforehand."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from palate.core.seeds import generator_for
from palate.metrics.diversity import distinct_n, self_bleu
from palate.metrics.intervals import bootstrap_interval
from palate.metrics.win_rates import TIE, verdicts_from_scores
from research.board.entrant import Entrant
from research.board.methods import BOTH, entrants
from research.board.rows import Fact, Row
from research.board.tables import TIE_MARGIN, Cell, Compared, Keep, Tables, adjusted, alone, at
from research.board.users import SHAPES, WORDINGS

SAME_PASSES = 0.05  # numbers of passes that are closer are one
N_GROUPS, GROUP_USERS = 8, 8  # prompts, and users whose answers to one are compared for diversity
KNOWLEDGE = {  # what an entrant knows to the entrants that may be compared with it
    "words": ("nothing", "words"),
    "sliders": ("nothing", "sliders"),
    "10 comparisons or fewer": ("nothing", "comparisons"),
    BOTH: ("nothing", "words", "comparisons", BOTH),
}
FEW = 10


def passes_of(tables: Tables, method: str) -> float:
    """Mean passes of the base per sampled token over single prompts."""
    rows = [row.n_passes for row in tables.by_method[method] if row.turns == 0]
    return float(np.mean(rows))


def method_rows(tables: Tables, facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """One mapping for each method: utility, gains, wins, costs, guards, diversity."""
    known = {name: one for name, one in entrants().items() if name in tables}
    gains = tables.compare([(name, "base") for name in known if name != "base"], alone)
    prompts = tables.compare([(name, "prompt") for name in known if name != "prompt"], alone)
    rows: list[dict[str, Any]] = []
    for name, entrant in known.items():
        wins = None if name == "base" else tables.wins(name, "base", alone)
        utility = tables.mean(name, alone)
        rows.append(
            {
                "name": name,
                "title": entrant.title,
                "knows": entrant.knows,
                "n_comparisons": entrant.n_comparisons,
                "is_ours": entrant.is_ours,
                "n_cells": sum(map(alone, tables.cells[name])),
                "n_users": len({row.user for row in tables.by_method[name]}),
                "utility": None if utility is None else utility.to_json(),
                "gain": _json(gains.get((name, "base"))),
                "versus_prompt": _json(prompts.get((name, "prompt"))),
                "wins": None if wins is None else wins.to_json(),
                **_costs(tables, entrant, facts),
                **_guards(tables.by_method[name]),
            }
        )
    return rows


def _json(one: Compared | None) -> dict[str, Any] | None:
    return None if one is None else one.to_json()


def _costs(tables: Tables, entrant: Entrant, facts: Sequence[Fact]) -> dict[str, float | None]:
    name = entrant.name
    own = [row for row in tables.by_method[name] if row.turns == 0]

    def fact(quantity: str, of: str = name) -> float | None:
        values = [one.value for one in facts if (one.name, one.method) == (quantity, of)]
        return float(np.mean(values)) if values else None

    trained = fact("adapter_seconds", entrant.adapters) if entrant.adapters else 0.0
    users = 1 if entrant.adapters.startswith("own-") else len(tables.users)
    nats = fact("neutral_nats")
    return {
        "passes": passes_of(tables, name),
        "prompt_tokens": float(np.mean([row.n_prompt_tokens for row in own])),
        "bytes_per_user": fact("bytes_per_user"),
        "verdict_seconds": fact("verdict_seconds"),
        "training_minutes_per_user": None if trained is None else trained / 60 / users,
        "neutral_perplexity": None if nats is None else float(np.exp(nats)),
    }


def _guards(rows: Sequence[Row]) -> dict[str, float | None]:
    own = [row for row in rows if row.turns == 0]
    near = [row.relevance for row in own if row.relevance is not None]
    return {
        "whole": float(np.mean([row.whole for row in own])),
        "relevance": float(np.mean(near)) if near else None,
        "words": float(np.mean([len(row.text.split()) for row in own])),
    }


def best_of(
    tables: Tables, names: Sequence[str], keep: Keep, *, against: str = "base"
) -> dict[str, Any] | None:
    """Of these methods the one that is ahead, and those not significantly different.

    The choice rests on the same answers, so the gain of the best is flattered; what the choice on
    half of the prompts gains on the others is not.
    """
    gains: Gains = {}
    for name in names:
        mine, theirs, cells = tables.pairs(name, against, keep)
        if cells:
            gains[name] = dict(zip(cells, (mine - theirs).tolist(), strict=True))
    if not gains:
        return None
    best = ahead(gains)
    compared = tables.compare([(best, name) for name in gains if name != best], keep)
    equals = [pair[1] for pair, one in compared.items() if one.verdict != "better"]
    return {
        "method": best,
        "gain": float(np.mean(list(gains[best].values()))),
        "gain_on_other_prompts": gain_on_other_prompts(gains),
        "n_users": len({cell[0] for cell in gains[best]}),
        "is_ours": entrants()[best].is_ours,
        "not_significantly_different": equals,
    }


Gains = dict[str, dict[Cell, float]]  # method to cell to gain


def ahead(gains: Gains) -> str:
    """The method ahead of the others, compared on the cells that both have, most cells first.

    Some methods have fewer users than others, and means over different users say nothing.
    """
    first, *others = sorted(gains, key=lambda name: -len(gains[name]))
    for name in others:
        mine, theirs = gains[name], gains[first]
        both = [(at(mine, cell), at(theirs, cell)) for cell in sorted({*mine, *theirs})]
        gaps = [one - other for one, other in both if one is not None and other is not None]
        if gaps and np.mean(gaps) > 0:
            first = name
    return first


def gain_on_other_prompts(gains: Gains) -> float | None:
    """What is ahead on every second prompt gains on the others, and the other way round.

    `None` with one prompt.
    """
    prompts = sorted({cell[1] for own in gains.values() for cell in own})
    values: list[float] = []
    for place in (0, 1):
        seen = set(prompts[place::2])
        chosen_on: Gains = {
            name: {cell: gain for cell, gain in own.items() if cell[1] in seen}
            for name, own in gains.items()
        }
        chosen_on = {name: own for name, own in chosen_on.items() if own}
        if chosen_on:
            own = gains[ahead(chosen_on)]
            values += [gain for cell, gain in own.items() if cell[1] not in seen]
    return float(np.mean(values)) if len(prompts) > 1 and values else None


def frontier(tables: Tables) -> list[dict[str, Any]]:
    """The best method within each number of passes that some method takes, by what it knows."""
    passes = {name: passes_of(tables, name) for name in entrants() if name in tables}
    limits: list[float] = []
    least = 0.0  # of the numbers that are one
    for value in sorted(passes.values()):
        if limits and value - least <= SAME_PASSES:
            limits[-1] = value
        else:
            limits.append(value)
            least = value
    rows: list[dict[str, Any]] = []
    for limit in limits:
        for knows in KNOWLEDGE:
            within = [name for name in competing(tables, knows) if passes[name] <= limit + 1e-9]
            best = best_of(tables, within, alone)
            before = [row for row in rows if row["knows"] == knows]
            if best is not None and (not before or before[-1]["method"] != best["method"]):
                rows.append({"passes": passes[best["method"]], "knows": knows, **best})
    return sorted(rows, key=lambda row: (row["passes"], list(KNOWLEDGE).index(row["knows"])))


def competing(tables: Tables, knows: str) -> list[str]:
    """The methods that know no more than this."""
    return [
        name
        for name, one in entrants().items()
        if name in tables and one.knows in KNOWLEDGE[knows] and one.n_comparisons <= FEW
    ]


def winners(tables: Tables) -> list[dict[str, Any]]:
    """Who wins where: the best method of one pass for each group of cells, by what is known."""
    rows: list[dict[str, Any]] = []
    for label, keep in groups(tables).items():
        row: dict[str, Any] = {"where": label}
        for knows in KNOWLEDGE:
            names = [
                name for name in competing(tables, knows) if passes_of(tables, name) <= 1 + 0.01
            ]
            row[knows] = best_of(tables, names, keep)
        rows.append(row)
    return rows


def groups(tables: Tables) -> dict[str, Keep]:
    """Named sets of cells: all single prompts, each shape, each length of conversation."""
    named: dict[str, Keep] = {"all single prompts": alone}
    shapes = {user.shape for user in tables.users.values()}
    for shape in (one for one in SHAPES if one in shapes):

        def of_shape(cell: Cell, shape: str = shape) -> bool:
            return alone(cell) and tables.shape(cell[0]) == shape

        named[f"{shape} preferences"] = of_shape
    for turns in sorted({row.turns for row in tables.rows} - {0}):

        def of_turns(cell: Cell, turns: int = turns) -> bool:
            return cell[2] == turns

        named[f"after {turns} earlier turns"] = of_turns
    return named


def questions(tables: Tables, by_form: Tables | None = None) -> list[dict[str, Any]]:
    """The comparisons that were put before the rows were there; p-values adjusted together.

    Beside each its answer by the measures of form alone, where every objective has one.
    """
    every = groups(tables)
    longest = max((row.turns for row in tables.rows), default=0)
    asked: list[tuple[str, str, str]] = [
        ("auto", "prompt", "uneven preferences"),
        ("auto", "prompt", f"after {longest} earlier turns"),
        ("auto", "prompt", "all single prompts"),
        ("auto+4-passes", "prompt+best-of-4", "all single prompts"),
        *((f"auto:{one}", f"prompt:{one}", "all single prompts") for one in WORDINGS),
        ("soup@10", "lora@10", "all single prompts"),
        ("soup@100", "lora@100", "all single prompts"),
        ("auto@10", "lora@10", "all single prompts"),
        ("auto@10", "examples@10", "all single prompts"),
        ("soup@10", "examples@10", "all single prompts"),
        ("mixture", "prompt", "all single prompts"),
        ("mixture", "mod", "all single prompts"),
    ]

    def answers(tables: Tables) -> dict[tuple[str, str, str], Compared]:
        raw = {
            one: difference
            for one in asked
            if one[0] in tables and one[1] in tables and one[2] in every
            if (difference := tables.difference(one[0], one[1], every[one[2]])) is not None
        }
        return adjusted(raw)

    formal = {} if by_form is None else answers(by_form)
    return [
        {
            **dict(zip(("first", "second", "where"), one, strict=True)),
            **compared.to_json(),
            "by_form": _json(formal.get(one)),
        }
        for one, compared in answers(tables).items()
    ]


def losses(tables: Tables) -> list[dict[str, Any]]:
    """Where palate's own choice is behind a rival that costs no more passes and knows no more.

    Its own choice is `auto`, however the user is known, and the soup of a learned user. Beside each
    loss stands what was taken. P-values are of each comparison alone: no loss is hidden by how many
    others there are.
    """
    rows: list[dict[str, Any]] = []
    for name in (one for one in entrants() if one.startswith(("auto", "soup@"))):
        if name not in tables:
            continue
        rivals = _rivals(tables, name)
        for where, keep in groups(tables).items():
            best = best_of(tables, rivals, keep)
            if best is None:
                continue
            rival = str(best["method"])
            difference = tables.difference(name, rival, keep)
            if difference is None or difference.interval.estimate >= 0:
                continue
            compared = adjusted({rival: difference})[rival]
            rows.append(
                {
                    "method": name,
                    "rival": rival,
                    "where": where,
                    "taken": _taken(tables, name, keep),
                    **compared.to_json(),
                }
            )
    return rows


def _rivals(tables: Tables, name: str) -> list[str]:
    """Methods of others that cost no more passes and know no more than this one."""
    own, limit = entrants()[name], passes_of(tables, name)
    return [
        one.name
        for one in entrants().values()
        if one.name in tables
        and not one.is_ours
        and one.knows in (*KNOWLEDGE.get(own.knows, ()), "nothing", own.knows)
        and one.n_comparisons <= own.n_comparisons
        and passes_of(tables, one.name) <= limit + SAME_PASSES
    ]


def _taken(tables: Tables, method: str, keep: Keep) -> dict[str, float]:
    """Share of the answers by the method that decided, largest first."""
    rows = [
        row
        for row in tables.by_method[method]
        if keep((row.user, row.prompt, row.turns, row.seed, row.library))
    ]
    names = [row.taken + (f"+best-of-{row.n_candidates}" * (row.n_candidates > 1)) for row in rows]
    counts = {name: names.count(name) / len(names) for name in dict.fromkeys(names)}
    return dict(sorted(counts.items(), key=lambda one: -one[1]))


def pairwise(tables: Tables) -> dict[str, dict[str, float]]:
    """Mean win rate of each method against every other, ties as half and ties out."""
    names = [name for name in entrants() if name in tables]
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for first, second in combinations(names, 2):
        mine, theirs, cells = tables.pairs(first, second, alone)
        if cells:
            verdicts = verdicts_from_scores(mine, theirs, tie_margin=TIE_MARGIN)
            decided = verdicts[verdicts != TIE]
            half = float(verdicts.mean())
            out = float(decided.mean()) if len(decided) else TIE
            rates[first].append((half, out))
            rates[second].append((1.0 - half, 1.0 - out))
    return {
        name: dict(zip(("ties_half", "ties_out"), np.mean(own, axis=0).tolist(), strict=True))
        for name, own in rates.items()
        if own
    }


def diversity(tables: Tables) -> list[dict[str, Any]]:
    """How different the users' answers to one prompt are, by method, against the base's copies.

    The base's answers to different users are draws of one policy: a portfolio of equal members.
    """
    groups_of = {name: _groups(tables.by_method[name]) for name in entrants() if name in tables}
    base = groups_of["base"]
    rows: list[dict[str, Any]] = []
    for name, own in groups_of.items():
        shared = sorted(key for key in own.keys() & base.keys() if len(own[key]) == len(base[key]))
        shared = shared[:N_GROUPS]
        if not shared:
            continue
        values = np.array([self_bleu(own[key]) for key in shared])
        row: dict[str, Any] = {
            "method": name,
            "n_prompts": len({key[0] for key in shared}),
            "self_bleu": float(values.mean()),
            "distinct_2": float(np.mean([distinct_n(own[key], n=2) for key in shared])),
            "verdict": "",
        }
        if name != "base" and len({key[0] for key in shared}) > 1:
            gaps = values - np.array([self_bleu(base[key]) for key in shared])
            generator, prompts = generator_for(0, "diversity", name), [key[0] for key in shared]
            interval = bootstrap_interval(gaps, generator=generator, clusters=prompts)
            row["less_alike_than_base"] = interval.to_json()
            row["verdict"] = _diversity_verdict(interval.low, interval.high)
        rows.append(row)
    return rows


def _diversity_verdict(low: float, high: float) -> str:
    if high < 0:
        return "more diverse"
    return "less diverse" if low > 0 else "not significantly different"


def _groups(rows: Sequence[Row]) -> dict[tuple[str, int], list[list[str]]]:
    """Texts of the first users by prompt and seed, where there are two that are not empty."""
    users = sorted({row.user for row in rows})[:GROUP_USERS]
    groups: dict[tuple[str, int], list[list[str]]] = {}
    for row in rows:
        if row.turns == 0 and row.library == 0 and row.user in users and len(row.text.split()) > 1:
            groups.setdefault((row.prompt, row.seed), []).append(row.text.split())
    return {key: texts for key, texts in groups.items() if len(texts) > 1}
