"""The scoreboard: every way's numbers with their intervals, from rows alone.

Intervals and p-values are clustered by person and by prompt at once (`palate.metrics`): the prompts
stand for prompts not asked, the people for people not there. The p-values of a table are adjusted
together (Holm). Seeds are repetitions within these clusters; what each alone says stands beside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.core.seeds import generator_for
from palate.evaluate.cells import Cells
from palate.evaluate.rows import FactRow
from palate.metrics.bespoke import BespokeShare, bespoke_share
from palate.metrics.differences import Difference, paired_difference
from palate.metrics.diversity import distinct_n, self_bleu, usage_perplexity
from palate.metrics.intervals import Interval, bootstrap_interval
from palate.metrics.length_control import length_controlled_rate
from palate.metrics.multiplicity import holm
from palate.metrics.pareto import hypervolume
from palate.metrics.sequential import sequential_test
from palate.metrics.utility_loss import worst_share_mean
from palate.metrics.win_rates import WinRates, verdicts_from_scores, win_rates

BASE, BESPOKE = "base", "bespoke"
TIE_MARGIN = 0.01  # utilities closer than a hundredth of the scale are a tie
WORST_SHARE = 0.1
N_GROUPS = 24  # prompts whose answers to all people are compared for diversity


@dataclass(frozen=True, eq=False)
class Wins:
    """A way against the base, as wins.

    Attributes:
        rates: With ties out, half and lost.
        length_controlled: Ties half, at equal length.
        n_to_decide: Prompts after which the test that may be looked at any time decided, or `None`.
    """

    rates: WinRates
    length_controlled: Interval
    n_to_decide: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **self.rates.to_json(),
            "length_controlled": self.length_controlled.to_json(),
            "prompts_to_decide": self.n_to_decide,
        }


@dataclass(frozen=True, eq=False)
class WayScore:
    """Everything said of one way.

    Attributes:
        way: Its name.
        utility: Mean of the person's preference times the judged rewards.
        by_seed: The same in each seed.
        gain: Over the base, paired.
        p_adjusted: Of the gain, Holm over all ways.
        wins: Against the base; `None` for the base itself.
        share: Of what bespoke experts reach; `None` where there are none.
        worst_person: Lowest mean of a person.
        worst_tenth: Mean of the lowest tenth of people and seeds.
        rewards: Objective to mean reward of the people who want it.
        well_formed: Share of answers the judge could read, or `None`.
        kl: Nats per answer to the base, or `None`.
        distinct_2: Different word pairs among all people's answers to one prompt.
        self_bleu: How alike these answers are.
        usage: Experts in use, `exp(entropy)` of everybody's absolute coefficients.
        volume: Hypervolume of people's mean rewards over the origin.
        passes: Of the model per answer token.
        facts: Name to mean over seeds.
    """

    way: str
    utility: Interval
    by_seed: Mapping[int, float]
    gain: Difference
    p_adjusted: float
    wins: Wins | None
    share: BespokeShare | None
    worst_person: float
    worst_tenth: float
    rewards: Mapping[str, float]
    well_formed: float | None
    kl: Interval | None
    distinct_2: float
    self_bleu: float
    usage: float
    volume: float
    passes: float
    facts: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "way": self.way,
            "utility": self.utility.to_json(),
            "utility_by_seed": {str(seed): value for seed, value in self.by_seed.items()},
            "gain": self.gain.to_json(),
            "p_adjusted": self.p_adjusted,
            "wins": self.wins and self.wins.to_json(),
            "percent_of_bespoke": self.share
            and {
                "gain": self.share.gain.to_json(),
                "raw": self.share.raw.to_json(),
                "worst": self.share.worst,
            },
            "worst_person": self.worst_person,
            "worst_tenth": self.worst_tenth,
            "rewards": dict(self.rewards),
            "well_formed": self.well_formed,
            "kl": self.kl and self.kl.to_json(),
            "distinct_2": self.distinct_2,
            "self_bleu": self.self_bleu,
            "usage_perplexity": self.usage,
            "hypervolume": self.volume,
            "passes_per_token": self.passes,
            "facts": dict(self.facts),
        }


def score_ways(
    cells: Cells, facts: Sequence[FactRow], *, preferences: Mapping[str, Mapping[str, float]]
) -> list[WayScore]:
    """One score per way, in the order of the cells' ways.

    Args:
        cells: Paired answers.
        facts: All fact rows.
        preferences: Person to objective to share.
    """
    gains = {way: difference_of(cells, way, BASE) for way in cells.ways}
    rivals = [way for way in cells.ways if way != BASE]
    adjusted = dict(zip(rivals, holm([gains[way].p_value for way in rivals]), strict=True))
    return [
        _score(
            cells,
            way,
            gain=gains[way],
            p_adjusted=float(adjusted.get(way, 1.0)),
            facts=[fact for fact in facts if fact.way == way],
            preferences=preferences,
        )
        for way in cells.ways
    ]


def difference_of(cells: Cells, first: str, second: str) -> Difference:
    """How much more the first way's answers are worth than the second's, on the same cells."""
    return paired_difference(
        cells.utility(first),
        cells.utility(second),
        generator=generator_for(0, "difference", first, second),
        clusters=cells.people,
        second_clusters=cells.prompts,
    )


def utility_of(cells: Cells, way: str) -> Interval:
    """A way's mean utility, over people and prompts not asked."""
    return _interval(cells, cells.utility(way), "utility", way)


def _score(
    cells: Cells,
    way: str,
    *,
    gain: Difference,
    p_adjusted: float,
    facts: Sequence[FactRow],
    preferences: Mapping[str, Mapping[str, float]],
) -> WayScore:
    utility = cells.utility(way)
    seeds = np.array(cells.seeds)
    rows = cells.rows[way]
    log_ratios = [row.log_ratio for row in rows if row.log_ratio is not None]
    is_read = [row.is_well_formed for row in rows if row.is_well_formed is not None]
    n_tokens = max(sum(row.n_tokens for row in rows), 1)
    names = sorted({fact.name for fact in facts})
    return WayScore(
        way=way,
        utility=utility_of(cells, way),
        by_seed={int(s): float(utility[seeds == s].mean()) for s in sorted(set(cells.seeds))},
        gain=gain,
        p_adjusted=p_adjusted,
        wins=None if way == BASE else _wins(cells, way),
        share=_share(cells, way),
        worst_person=min(cells.by_person(utility).values()),
        worst_tenth=worst_share_mean(cells.by_person_and_seed(utility), share=WORST_SHARE),
        rewards=_wanted_rewards(cells, way, preferences),
        well_formed=float(np.mean(is_read)) if len(is_read) == len(rows) else None,
        kl=_interval(cells, np.array(log_ratios), "kl", way)
        if len(log_ratios) == len(rows)
        else None,
        **_diversity(cells, way),
        usage=_usage(cells, way),
        volume=_volume(cells, way),
        passes=sum(row.n_drawn_tokens * row.n_rows for row in rows) / n_tokens,
        facts={name: float(np.mean([f.value for f in facts if f.name == name])) for name in names},
    )


def _interval(cells: Cells, values: np.ndarray, *names: str) -> Interval:
    return bootstrap_interval(
        values,
        generator=generator_for(0, *names),
        clusters=cells.people,
        second_clusters=cells.prompts,
    )


def _wins(cells: Cells, way: str) -> Wins:
    verdicts = verdicts_from_scores(cells.utility(way), cells.utility(BASE), tie_margin=TIE_MARGIN)
    rates = win_rates(verdicts, clusters=cells.people, second_clusters=cells.prompts)
    lengths = [cells.values(one, lambda row: len(row.text.split())) for one in (way, BASE)]
    controlled = length_controlled_rate(
        verdicts,
        length_differences=lengths[0] - lengths[1],
        clusters=cells.people,
        second_clusters=cells.prompts,
    )
    prompts = np.array(cells.prompts)
    by_prompt = [float(verdicts[prompts == one].mean()) for one in dict.fromkeys(cells.prompts)]
    return Wins(rates, controlled.rate, sequential_test(by_prompt).n_to_decide)


def _share(cells: Cells, way: str) -> BespokeShare | None:
    if BESPOKE not in cells.ways or len(set(cells.people)) < 2:
        return None
    means = [np.array([*cells.by_person(cells.utility(w)).values()]) for w in (way, BASE, BESPOKE)]
    if float(np.sum(means[2] - means[1])) <= 0:
        return None
    return bespoke_share(
        means[0], base=means[1], ceiling=means[2], generator=generator_for(0, "bespoke", way)
    )


def _wanted_rewards(
    cells: Cells, way: str, preferences: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for row in cells.rows[way]:
        for objective, share in preferences[row.person].items():
            if share > 0:
                found.setdefault(objective, []).append(row.rewards[objective])
    return {objective: float(np.mean(values)) for objective, values in found.items()}


def _diversity(cells: Cells, way: str) -> dict[str, float]:
    groups: dict[tuple[str, int, int], list[list[str]]] = {}
    for cell, row in zip(cells.cells, cells.rows[way], strict=True):
        groups.setdefault(cell[1:], []).append(row.text.split())
    kept = [[text for text in g if text] for g in list(groups.values())[:N_GROUPS]]
    kept = [group for group in kept if len(group) > 1]
    distinct = [distinct_n(group, n=2) for group in kept]
    return {
        "distinct_2": _mean([share for share in distinct if not np.isnan(share)]),
        "self_bleu": _mean([self_bleu(group) for group in kept]),
    }


def _mean(values: Sequence[float]) -> float:
    """Zero without values: texts of one word have no pairs."""
    return float(np.mean(values)) if values else 0.0


def _usage(cells: Cells, way: str) -> float:
    people = {row.person: row.coefficients for row in cells.rows[way]}
    names = sorted({name for one in people.values() for name in one})
    table = np.array([[abs(one.get(name, 0.0)) for name in names] for one in people.values()])
    kept = table[table.sum(axis=1) > 0] if table.size else table
    return usage_perplexity(kept) if kept.size else 0.0


def _volume(cells: Cells, way: str) -> float:
    rows = cells.rows[way]
    objectives = sorted(rows[0].rewards)
    people = dict.fromkeys(cells.people)
    means = np.array(
        [
            [np.mean([r.rewards[name] for r in rows if r.person == one]) for name in objectives]
            for one in people
        ]
    )
    return hypervolume(means, reference=np.zeros(len(objectives)))
