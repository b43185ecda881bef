"""The scoreboard: every method's numbers with their intervals, from rows alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.core.seeds import generator_for
from palate.evaluate.catalogue import BASE, BESPOKE, PROMPT
from palate.evaluate.cells import Cells
from palate.evaluate.compare import Compared, passes_of, utility_of, versus
from palate.evaluate.rows import FactRow
from palate.metrics.bespoke import BespokeShare, bespoke_share, worst_share_mean
from palate.metrics.diversity import distinct_n, self_bleu, usage_perplexity
from palate.metrics.intervals import Interval, bootstrap_interval
from palate.metrics.length_control import length_controlled_rate
from palate.metrics.pareto import hypervolume
from palate.metrics.sequential import observations_to_decide
from palate.metrics.win_rates import WinRates, verdicts_from_scores, win_rates

TIE_MARGIN = 0.01  # utilities closer than a hundredth of the scale are a tie
WORST_SHARE = 0.1
N_GROUPS = 24  # prompts whose answers to all users are compared for diversity


@dataclass(frozen=True, eq=False)
class Wins:
    """A method against the base, as wins."""

    rates: WinRates  # with ties out, half and lost
    length_controlled: Interval  # ties half, at equal length
    n_to_decide: int | None  # prompts until a test that may be looked at any time decided

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **self.rates.to_json(),
            "length_controlled": self.length_controlled.to_json(),
            "prompts_to_decide": self.n_to_decide,
        }


@dataclass(frozen=True, eq=False)
class MethodScore:
    """Everything said of one method."""

    method: str
    utility: Interval  # mean of the user's preference times the judged rewards
    utility_by_seed: Mapping[int, float]
    gain: Compared | None  # over the base, paired; None for the base itself
    versus_prompt: Compared | None  # the same against the system prompt, where there is one
    wins: Wins | None  # against the base; None for the base itself
    percent_of_bespoke: BespokeShare | None  # None where there are no bespoke experts
    worst_user: float  # lowest mean of a user
    worst_tenth: float  # mean of the lowest tenth of users and seeds
    rewards: Mapping[str, float]  # objective to mean reward of the users who want it
    well_formed: float | None  # share of answers that the judge could read
    kl: Interval | None  # nats per answer to the base
    distinct_2: float  # different word pairs among all users' answers to one prompt
    self_bleu: float  # how alike these answers are
    usage_perplexity: float  # experts in use: exp(entropy) of all users' absolute coefficients
    hypervolume: float  # of users' mean rewards over the origin
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
        percent_of_bespoke=_share(cells, method),
        worst_user=min(cells.by_user(utility).values()),
        worst_tenth=worst_share_mean(cells.by_user_and_seed(utility), share=WORST_SHARE),
        rewards={objective: float(np.mean(values)) for objective, values in wanted.items()},
        well_formed=float(np.mean(is_read)) if len(is_read) == len(rows) else None,
        kl=bootstrap_interval(
            log_ratios, generator=generator_for(0, "kl", method), **cells.clusters
        )
        if len(log_ratios) == len(rows)
        else None,
        **_diversity(cells, method),
        usage_perplexity=_usage(cells, method),
        hypervolume=_volume(cells, method),
        passes_per_token=passes_of(cells, method),
        facts={name: float(np.mean([f.value for f in facts if f.name == name])) for name in names},
    )


def _wins(cells: Cells, method: str) -> Wins:
    verdicts = verdicts_from_scores(
        cells.utility(method), cells.utility(BASE), tie_margin=TIE_MARGIN
    )
    lengths = [cells.values(one, lambda row: len(row.text.split())) for one in (method, BASE)]
    controlled = length_controlled_rate(
        verdicts, length_differences=lengths[0] - lengths[1], **cells.clusters
    )
    prompts = np.array(cells.prompts)
    by_prompt = [float(verdicts[prompts == one].mean()) for one in dict.fromkeys(cells.prompts)]
    rates = win_rates(verdicts, **cells.clusters)
    return Wins(rates, controlled.rate, observations_to_decide(by_prompt))


def _share(cells: Cells, method: str) -> BespokeShare | None:
    if BESPOKE not in cells.methods or len(set(cells.users)) < 2:
        return None
    means = [
        np.array([*cells.by_user(cells.utility(one)).values()]) for one in (method, BASE, BESPOKE)
    ]
    if float(np.sum(means[2] - means[1])) <= 0:
        return None
    return bespoke_share(
        means[0], base=means[1], ceiling=means[2], generator=generator_for(0, "bespoke", method)
    )


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


def _volume(cells: Cells, method: str) -> float:
    rows = cells.rows[method]
    objectives = sorted(rows[0].rewards)
    users = dict.fromkeys(cells.users)
    means = np.array(
        [
            [np.mean([r.rewards[name] for r in rows if r.user == one]) for name in objectives]
            for one in users
        ]
    )
    return hypervolume(means, reference=np.zeros(len(objectives)))
