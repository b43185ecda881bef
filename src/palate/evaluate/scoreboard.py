"""Every method's numbers with their intervals, and what the figures show, from rows alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import Float

from palate.core.seeds import generator_for
from palate.evaluate.catalogue import BASE, PROMPT, parse_name
from palate.evaluate.cells import Cells
from palate.evaluate.compare import (
    Compared,
    Pair,
    adjusted,
    difference_of,
    passes_of,
    utility_of,
    versus,
)
from palate.evaluate.rows import FactRow
from palate.metrics.differences import Difference
from palate.metrics.diversity import distinct_n, self_bleu, usage_perplexity
from palate.metrics.intervals import Interval, bootstrap_interval
from palate.metrics.win_rates import (
    WinRates,
    length_controlled_rate,
    verdicts_from_scores,
    win_rate_matrix,
    win_rates,
)

TIE_MARGIN = 0.01  # utilities closer than a hundredth of the scale are a tie
WORST_SHARE = 0.1
N_GROUPS = 24  # prompts whose answers to all users are compared for diversity


@dataclass(frozen=True, eq=False)
class Wins:
    """A method against the base, as wins."""

    rates: WinRates  # with ties out, half and lost
    length_controlled: Interval  # ties half, at equal length

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**self.rates.to_json(), "length_controlled": self.length_controlled.to_json()}


@dataclass(frozen=True, eq=False)
class MethodScore:
    """Everything said of one method."""

    method: str
    utility: Interval  # mean of the user's preference times the judged rewards
    utility_by_seed: Mapping[int, float]
    gain: Compared | None  # over the base, paired; None for the base itself
    versus_prompt: Compared | None  # the same against the system prompt, where there is one
    wins: Wins | None  # against the base; None for the base itself
    worst_user: float  # lowest mean of a user
    worst_tenth: float  # mean of the lowest tenth of users and seeds
    rewards: Mapping[str, float]  # objective to mean reward of the users who want it
    well_formed: float | None  # share of answers that the judge could read
    kl: Interval | None  # nats per answer to the base
    distinct_2: float  # different word pairs among all users' answers to one prompt
    self_bleu: float  # how alike these answers are
    usage_perplexity: float  # experts in use: exp(entropy) of all users' absolute coefficients
    passes_per_token: float  # of the base, candidates included
    facts: Mapping[str, float]  # name to mean over seeds


def score_methods(
    cells: Cells, facts: Sequence[FactRow], *, preferences: Mapping[str, Mapping[str, float]]
) -> list[MethodScore]:
    """One score per method, in the order of the cells' methods."""
    return [_score(cells, *one, facts, preferences) for one in versus(cells)]


def _score(
    cells: Cells,
    method: str,
    against: Mapping[str, Compared],
    every: Sequence[FactRow],
    preferences: Mapping[str, Mapping[str, float]],
) -> MethodScore:
    facts = [fact for fact in every if fact.method == method]
    utility = cells.utility(method)
    seeds = np.array(cells.seeds)
    rows = cells.rows[method]
    log_ratios = [row.log_ratio for row in rows if row.log_ratio is not None]
    is_read = [row.is_well_formed for row in rows if row.is_well_formed is not None]
    names = sorted({fact.name for fact in facts})
    wanted: dict[str, list[float]] = {}
    for row in rows:
        for objective, share in preferences[row.user].items():
            if share > 0:
                wanted.setdefault(objective, []).append(row.rewards[objective])
    return MethodScore(
        method=method,
        utility=utility_of(cells, method),
        utility_by_seed={
            int(s): float(utility[seeds == s].mean()) for s in sorted(set(cells.seeds))
        },
        gain=against.get(BASE),
        versus_prompt=against.get(PROMPT),
        wins=None if method == BASE else _wins(cells, method),
        worst_user=min(cells.by_user(utility).values()),
        worst_tenth=worst_tenth(cells.by_user_and_seed(utility)),
        rewards={objective: float(np.mean(values)) for objective, values in wanted.items()},
        well_formed=float(np.mean(is_read)) if len(is_read) == len(rows) else None,
        kl=bootstrap_interval(
            log_ratios, generator=generator_for(0, "kl", method), **cells.clusters
        )
        if len(log_ratios) == len(rows)
        else None,
        **_diversity(cells, method),
        usage_perplexity=_usage(cells, method),
        passes_per_token=passes_of(cells, method),
        facts={name: float(np.mean([f.value for f in facts if f.name == name])) for name in names},
    )


def worst_tenth(values: Float[np.ndarray, " groups"]) -> float:
    """Mean of the lowest tenth of the values, at least of one.

    A description of those listed, not an estimate for others: the worst tenth of a sample looks
    worse the more its values are noise.
    """
    # 0.1 * 30 is 3.0000000000000004: rounding must not add one
    n = max(1, ceil(WORST_SHARE * len(values) - 1e-9))
    return float(np.sort(values)[:n].mean())


def _wins(cells: Cells, method: str) -> Wins:
    verdicts = verdicts_from_scores(
        cells.utility(method), cells.utility(BASE), tie_margin=TIE_MARGIN
    )
    lengths = [cells.values(one, lambda row: len(row.text.split())) for one in (method, BASE)]
    controlled = length_controlled_rate(
        verdicts, length_differences=lengths[0] - lengths[1], **cells.clusters
    )
    rates = win_rates(verdicts, **cells.clusters)
    return Wins(rates, controlled.rate)


def _diversity(cells: Cells, method: str) -> dict[str, float]:
    groups: dict[tuple[str, int, int], list[list[str]]] = {}
    for cell, row in zip(cells.cells, cells.rows[method], strict=True):
        groups.setdefault(cell[1:], []).append(row.text.split())
    answered = [[text for text in g if text] for g in list(groups.values())[:N_GROUPS]]
    answered = [group for group in answered if len(group) > 1]
    distinct = [distinct_n(group, n=2) for group in answered]
    return {
        "distinct_2": _mean([share for share in distinct if not np.isnan(share)]),
        "self_bleu": _mean([self_bleu(group) for group in answered]),
    }


def _mean(values: Sequence[float]) -> float:
    """Zero without values: texts of one word have no pairs."""
    return float(np.mean(values)) if values else 0.0


def _usage(cells: Cells, method: str) -> float:
    users = {row.user: row.coefficients for row in cells.rows[method]}
    names = sorted({name for one in users.values() for name in one})
    table = np.array([[abs(one.get(name, 0.0)) for name in names] for one in users.values()])
    served = table[table.sum(axis=1) > 0] if table.size else table
    return usage_perplexity(served) if served.size else 0.0


@dataclass(frozen=True, eq=False)
class Matrix:
    """Every method against every other, where the preference is stated."""

    methods: tuple[str, ...]  # rows and columns
    rates: Float[np.ndarray, "methods methods"]  # share of cells the row wins, ties half
    compared: Mapping[Pair, Compared]  # row less column, row before column; Holm over all of them

    def is_significant(self, first: str, second: str) -> bool:
        """Whether the adjusted test and the interval say that the two differ."""
        if (first, second) not in self.compared:
            first, second = second, first
        return first != second and self.compared[first, second].is_significant

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "methods": list(self.methods),
            "rates": self.rates.tolist(),
            "comparisons": [
                {"first": first, "second": second, **one.to_json()}
                for (first, second), one in self.compared.items()
            ],
        }


def win_matrix(cells: Cells) -> Matrix:
    """All pairs of methods whose users state their preference."""
    methods = tuple(method for method in cells.methods if parse_name(method).n_comparisons is None)
    scores = np.stack([cells.utility(method) for method in methods])
    differences = {pair: difference_of(cells, *pair) for pair in combinations(methods, 2)}
    return Matrix(methods, win_rate_matrix(scores, tie_margin=TIE_MARGIN), adjusted(differences))


@dataclass(frozen=True)
class CurvePoint:
    """What users gain who are known by so many comparisons."""

    method: str
    n_comparisons: int
    difference: Difference  # from the base
    worst: float  # the worst user's

    @property
    def name(self) -> str:
        """Of the entrant."""
        return f"{self.method}@{self.n_comparisons}"


def gain_by_comparisons(cells: Cells) -> list[CurvePoint]:
    """What users gain over the base when they are known by N comparisons, by method and N."""
    points: list[CurvePoint] = []
    for method in cells.methods:
        name = parse_name(method)
        if name.n_comparisons is None or name.n_candidates is not None:
            continue
        gains = cells.by_user(cells.utility(method) - cells.utility(BASE))
        difference = difference_of(cells, method, BASE)
        points.append(CurvePoint(name.method, name.n_comparisons, difference, min(gains.values())))
    return sorted(points, key=lambda point: (point.method, point.n_comparisons))


@dataclass(frozen=True)
class Front:
    """Two objectives that pull against each other, and how far each method gets towards both."""

    objectives: tuple[str, str]  # on the two axes
    points: Mapping[str, tuple[tuple[float, float], ...]]  # of who wants the first, the second


def fronts(
    cells: Cells, methods: Sequence[str], *, preferences: Mapping[str, Mapping[str, float]]
) -> list[Front]:
    """One front per pair of objectives that nobody wants together, at most three."""
    wanted = {
        user: {name for name, share in shares.items() if share > 0}
        for user, shares in preferences.items()
    }
    objectives = list(dict.fromkeys(name for shares in preferences.values() for name in shares))
    pairs = [
        pair
        for pair in combinations(objectives, 2)
        if not any(set(pair) <= some for some in wanted.values())
    ]
    return [
        Front(pair, {one: _ends(cells, one, pair, wanted) for one in methods}) for pair in pairs[:3]
    ]


def _ends(
    cells: Cells, method: str, pair: tuple[str, str], wanted: Mapping[str, set[str]]
) -> tuple[tuple[float, float], ...]:
    rows = cells.rows[method]
    points: list[tuple[float, float]] = []
    for end in pair:
        own = [row for row in rows if end in wanted[row.user]]
        means = [float(np.mean([row.rewards[name] for row in own])) for name in pair]
        points.append((means[0], means[1]))
    return tuple(points)
