"""What portfolios of learned experts lose, by size and by the method that found them.

Losses are differences in `J = w @ R - beta KL` to the best of all policies trained for the seed, so
a gap is relative to those: a policy that nobody trained may be better. R comes from the gold rules
and KL is measured, both on held-out prompts; the members were chosen by the library's own rewards
on other prompts. All policies answer the same prompts with the same seeds; intervals resample whole
prompts, the same for all policies and seeds.

Methods:
    uniform     one expert per uniform anchor, as many as members
    random      the same for anchors drawn from the simplex; mean over draws
    adaptive    adaptive search stopped at the size; below three the best of the objectives' experts
    PALM        adaptive search with `max_calls` policies, pruned to the best members
    any         the best members of everything trained, chosen by the same rewards: a reference
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.seeds import generator_for
from palate.core.simplex import lattice
from palate.metrics.diversity import distinct_n, self_bleu, usage_perplexity
from palate.portfolio.everybody import Stakes, best_members
from palate.portfolio.payoffs import Measurements
from research.portfolio.world_policies import Trained, WorldStudySettings, trained_policies

METHODS = ("uniform", "random", "adaptive", "PALM", "any")
DENOMINATOR = 30  # of the lattice of users whose losses are counted
N_DRAWS = 20  # random portfolios of a size, at most
LEVEL = 0.95
DIVERSITY_SIZE = 5  # members whose texts are compared

Members = Mapping[tuple[str, int], tuple[tuple[int, ...], ...]]  # method and size -> portfolios


@dataclass(frozen=True)
class Estimate:
    """A number with its interval over prompts, and what it is in each seed."""

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class GapRow:
    """What one method loses at one size.

    Attributes:
        method: See the module's text.
        size: Members.
        additive: Largest loss of anybody on the lattice, reward units; mean over seeds.
        multiplicative: Largest share lost.
        mean: Mean loss over the lattice.
        routed: Largest loss when users are routed by the library's rewards instead of the judge.
        less_than_uniform: The additive gap minus that of `uniform` at the same size.
        less_than_random: The same, minus that of `random`.
        perplexity: How many members are in use, mean over seeds.
    """

    method: str
    size: int
    additive: Estimate
    multiplicative: Estimate
    mean: Estimate
    routed: Estimate
    less_than_uniform: Estimate
    less_than_random: Estimate
    perplexity: float


@dataclass(frozen=True)
class DiversityRow:
    """How different the members' answers to one prompt are, means over prompts and seeds."""

    method: str
    size: int
    distinct_2: float
    self_bleu: float
    mean_regret_between: float


@dataclass(frozen=True)
class WorldStudy:
    """The findings.

    Attributes:
        settings: Seeds and numbers.
        n_policies: Trained, by seed.
        n_calls: That adaptive search made, by seed.
        n_prompts: Held out.
        rows: By method and size.
        diversity: By method.
        oracle_failures: Policies beaten at their own preference by more than two standard errors
            on the prompts that choices are made on, by seed.
    """

    settings: WorldStudySettings
    n_policies: tuple[int, ...]
    n_calls: tuple[int, ...]
    n_prompts: int
    rows: tuple[GapRow, ...]
    diversity: tuple[DiversityRow, ...]
    oracle_failures: tuple[tuple[str, ...], ...]

    def row(self, method: str, size: int) -> GapRow:
        """The row of this method and size."""
        return next(row for row in self.rows if (row.method, row.size) == (method, size))


def study_world_portfolios(settings: WorldStudySettings, *, work: Path) -> WorldStudy:
    """Train, measure and compare; goes on where an interrupted study stopped."""
    found = [trained_policies(settings, seed=seed, work=work) for seed in settings.seeds]
    return compare_methods(found, settings=settings)


def compare_methods(found: Sequence[Trained], *, settings: WorldStudySettings) -> WorldStudy:
    """The findings in measured policies."""
    sizes = range(1, settings.max_size + 1)
    members = [members_by_method(one, sizes=sizes) for one in found]
    samples = _resampled(found, members, n_resamples=settings.n_resamples)
    rows = tuple(
        _row(samples, method, size, perplexity=_perplexity(found, members, method, size))
        for method in METHODS
        for size in sizes
    )
    size = min(DIVERSITY_SIZE, settings.max_size)
    return WorldStudy(
        settings=settings,
        n_policies=tuple(len(one.seen.policies) for one in found),
        n_calls=tuple(len(one.adaptive) for one in found),
        n_prompts=found[0].gold.kl.shape[1],
        rows=rows,
        diversity=tuple(_diversity(found, members, method, size) for method in METHODS),
        oracle_failures=tuple(oracle_failures(one.seen) for one in found),
    )


def members_by_method(one: Trained, *, sizes: Sequence[int]) -> Members:
    """Indices of every method's members, chosen on what the library's rewards say."""
    names = list(one.seen.policies)
    values = _values(one.seen).mean(axis=1)
    search = [names.index(name) for name in one.adaptive]
    drawn = [names.index(name) for name in one.random]
    n_objectives = values.shape[1]
    found: dict[tuple[str, int], tuple[tuple[int, ...], ...]] = {}
    for size in sizes:
        uniform = tuple(dict.fromkeys(names.index(name) for name in one.uniform[size - 1]))
        pool = search[: max(size, n_objectives)]
        found["uniform", size] = (uniform,)
        found["random", size] = _draws(drawn, size, seed=one.seed)
        found["adaptive", size] = (_best(values, pool, size),)
        found["PALM", size] = (_best(values, search, size),)
        found["any", size] = (_best(values, list(range(len(names))), size),)
    return found


def oracle_failures(seen: Measurements) -> tuple[str, ...]:
    """Policies that another one beats at their own preference by more than two standard errors.

    Source:
        palm.md, section 13.
    """
    values = _values(seen)
    failures: list[str] = []
    for index, name in enumerate(seen.policies):
        worth = values @ seen.preferences[index]  # [policies, prompts]
        ahead = worth - worth[index]
        errors = ahead.std(axis=1, ddof=1) / np.sqrt(ahead.shape[1])
        if np.any(ahead.mean(axis=1) > 2.0 * np.maximum(errors, 1e-12)):
            failures.append(name)
    return tuple(failures)


def losses_of(
    worth: Float[ndarray, "users policies"],
    believed: Float[ndarray, "users policies"],
    members: Sequence[int],
) -> dict[str, float]:
    """What users lose with these members, against the best of all policies.

    Args:
        worth: What every policy is worth to everybody, by the judge.
        believed: The same by the library's rewards, by which users are routed.
        members: Indices of policies.
    """
    chosen = list(members)
    best, own = worth.max(axis=1), worth[:, chosen]
    losses = best - own.max(axis=1)
    routed = believed[:, chosen].argmax(axis=1)
    return {
        "additive": float(losses.max()),
        "multiplicative": float(np.max(losses / best)) if best.min() > 0.0 else float("nan"),
        "mean": float(losses.mean()),
        "routed": float(np.max(best - own[np.arange(len(own)), routed])),
    }


def _best(
    values: Float[ndarray, "policies objectives"], pool: Sequence[int], size: int
) -> tuple[int, ...]:
    """The pool's members with the smallest additive gap to the pool's best."""
    distinct = list(dict.fromkeys(pool))
    some = values[distinct]
    chosen = best_members(Stakes(values=some, rows=some), size=min(size, len(distinct)))
    return tuple(distinct[k] for k in chosen.members)


def _draws(drawn: Sequence[int], size: int, *, seed: int) -> tuple[tuple[int, ...], ...]:
    every = list(combinations(drawn, size))
    order = generator_for(seed, "random portfolios", size).permutation(len(every))[:N_DRAWS]
    return tuple(every[k] for k in sorted(order))


def _values(measurements: Measurements) -> Float[ndarray, "policies prompts objectives"]:
    """`R - beta KL` on every prompt."""
    return measurements.rewards - measurements.beta * measurements.kl[:, :, None]


Samples = dict[tuple[str, int, str], Float[ndarray, "resamples seeds"]]


def _resampled(
    found: Sequence[Trained], members: Sequence[Members], *, n_resamples: int
) -> Samples:
    """Losses by method, size and kind; the first sample is of all prompts as they are."""
    users = lattice(n_objectives=found[0].gold.rewards.shape[2], denominator=DENOMINATOR)
    n_prompts = found[0].gold.kl.shape[1]
    generator = generator_for(0, "portfolio study", n_prompts)
    shares = np.vstack(
        [
            np.full(n_prompts, 1.0 / n_prompts),
            generator.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), n_resamples)
            / n_prompts,
        ]
    )
    samples: Samples = {}
    for place, (one, portfolios) in enumerate(zip(found, members, strict=True)):
        believed = users @ _values(one.seen).mean(axis=1).T
        resampled = np.einsum("bx,pxi->bpi", shares, _values(one.gold))
        for sample, values in enumerate(resampled):
            worth = users @ values.T
            for key, options in portfolios.items():
                each = [losses_of(worth, believed, option) for option in options]
                for kind in each[0]:
                    table = samples.setdefault((*key, kind), np.zeros((len(shares), len(found))))
                    table[sample, place] = np.mean([losses[kind] for losses in each])
    return samples


def _row(samples: Samples, method: str, size: int, *, perplexity: float) -> GapRow:
    own = samples[method, size, "additive"]
    return GapRow(
        method=method,
        size=size,
        additive=_estimate(own),
        multiplicative=_estimate(samples[method, size, "multiplicative"]),
        mean=_estimate(samples[method, size, "mean"]),
        routed=_estimate(samples[method, size, "routed"]),
        less_than_uniform=_estimate(own - samples["uniform", size, "additive"]),
        less_than_random=_estimate(own - samples["random", size, "additive"]),
        perplexity=perplexity,
    )


def _estimate(table: Float[ndarray, "resamples seeds"]) -> Estimate:
    """The first row is the data; the others are resamples. Intervals are percentiles."""
    means = table.mean(axis=1)
    low, high = np.quantile(means[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(means[0]), float(low), float(high), tuple(table[0].tolist()))


def _perplexity(
    found: Sequence[Trained], members: Sequence[Members], method: str, size: int
) -> float:
    users = lattice(n_objectives=found[0].gold.rewards.shape[2], denominator=DENOMINATOR)
    numbers: list[float] = []
    for one, portfolios in zip(found, members, strict=True):
        values = _values(one.gold).mean(axis=1)
        for portfolio in portfolios[method, size]:
            best = (users @ values[list(portfolio)].T).argmax(axis=1)
            usage = np.bincount(best, minlength=len(portfolio)).astype(float)
            numbers.append(usage_perplexity(usage[None, :]))
    return float(np.mean(numbers))


def _diversity(
    found: Sequence[Trained], members: Sequence[Members], method: str, size: int
) -> DiversityRow:
    """Over each prompt's first answers, one per member; regret between members is beta KL (C3)."""
    distinct: list[float] = []
    bleu: list[float] = []
    regret: list[float] = []
    for one, portfolios in zip(found, members, strict=True):
        portfolio = portfolios[method, size][0]
        values = _values(one.seen).mean(axis=1)[list(portfolio)]
        worth = one.seen.preferences[list(portfolio)] @ values.T
        between = np.diag(worth)[:, None] - worth
        regret.append(float(between.sum() / max(1, size * (size - 1))))
        for prompt in range(one.gold.kl.shape[1]):
            words = [one.texts[k][prompt][0].split() for k in portfolio]
            words = [text for text in words if text]
            if len(words) > 1:
                distinct.append(distinct_n(words, n=2))
                bleu.append(self_bleu(words))
    return DiversityRow(
        method, size, float(np.nanmean(distinct)), float(np.mean(bleu)), float(np.mean(regret))
    )


def study_json(study: WorldStudy) -> dict[str, Any]:
    """The findings as plain data."""

    def plain(estimate: Estimate) -> dict[str, Any]:
        return {**vars(estimate), "by_seed": list(estimate.by_seed)}

    return {
        "settings": study.settings.model_dump(mode="json"),
        "n_policies": list(study.n_policies),
        "n_calls": list(study.n_calls),
        "n_prompts": study.n_prompts,
        "rows": [
            {
                key: plain(value) if isinstance(value, Estimate) else value
                for key, value in vars(row).items()
            }
            for row in study.rows
        ],
        "diversity": [vars(row) for row in study.diversity],
        "oracle_failures": [list(names) for names in study.oracle_failures],
    }
