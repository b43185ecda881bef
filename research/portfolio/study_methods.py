"""What portfolios of a size lose on the yardstick problems, by the method that found them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.seeds import generator_for
from palate.core.simplex import lattice
from palate.portfolio.adaptive import SearchSettings
from palate.portfolio.everybody import Stakes, best_members
from research.portfolio.exact import search
from research.portfolio.planned import PlannedSettings, planned
from research.portfolio.tabular import TabularOracle, TabularProblem, yardstick
from research.portfolio.tradeoff import MethodName, TradeoffSettings, find, users_losses

GRIDS = {2: (0.3, 0.1), 3: (0.5, 0.25)}  # PALM's tolerances on the yardstick
N_RANDOM = 10  # random portfolios a problem
TEST_DENOMINATORS = {2: 100, 3: 60}
POOL_DENOMINATORS = {2: 40, 3: 12}

Values = Float[ndarray, "members objectives"]


@dataclass(frozen=True)
class Outcome:
    """What a method found on one problem.

    Attributes:
        portfolios: Values of each portfolio's members; several where it was drawn at random.
        n_calls: Policies made for one.
        certified: Proven bound on the additive loss with all policies made, or `None`.
    """

    portfolios: tuple[Values, ...]
    n_calls: int
    certified: float | None = None


@dataclass(frozen=True)
class MethodRow:
    """What one method loses on one kind of problem: means over problems."""

    n_objectives: int
    beta: float
    size: int
    method: str
    n_calls: float
    multiplicative: float
    additive: float
    mean: float
    certified: float | None


def method_rows(
    n_objectives: int, beta: float, size: int, *, seeds: Sequence[int]
) -> Iterator[MethodRow]:
    """What every method loses on one kind of problem."""
    users = lattice(n_objectives=n_objectives, denominator=TEST_DENOMINATORS[n_objectives])
    problems = [yardstick(seed=s, n_objectives=n_objectives, beta=beta) for s in seeds]
    truths = [problem.best_values(users) for problem in problems]
    for method, run in _methods(n_objectives, size).items():
        found = [run(problem, seed) for problem, seed in zip(problems, seeds, strict=True)]
        losses = [
            users_losses(values, users=users, best_values=truth)
            for outcome, truth in zip(found, truths, strict=True)
            for values in outcome.portfolios
        ]
        certificates = [outcome.certified for outcome in found if outcome.certified is not None]
        yield MethodRow(
            n_objectives=n_objectives,
            beta=beta,
            size=size,
            method=method,
            n_calls=float(np.mean([outcome.n_calls for outcome in found])),
            multiplicative=float(np.mean([loss.multiplicative for loss in losses])),
            additive=float(np.mean([loss.additive for loss in losses])),
            mean=float(np.mean([loss.mean for loss in losses])),
            certified=float(np.mean(certificates)) if certificates else None,
        )


Run = Callable[[TabularProblem, int], Outcome]


def _methods(n_objectives: int, size: int) -> dict[str, Run]:
    """Each method as a function of problem and seed."""
    return {
        "random": _random(size),
        "uniform": _named("uniform", n_objectives, size),
        "adaptive": _adaptive(size, n_calls=size),
        "planned": _planned(size, n_calls=size),
        "adaptive, pruned": _adaptive(size, n_calls=2 * size),
        "planned, pruned": _planned(size, n_calls=2 * size),
        "PALM grid, pruned": _named("palm", n_objectives, size),
        "best of a fine pool": _named("pool", n_objectives, size),
        "adaptive, not pruned": _adaptive(2 * size, n_calls=2 * size),
    }


def _named(method: MethodName, n_objectives: int, size: int) -> Run:
    epsilon, delta = GRIDS[n_objectives]
    pool = lattice(n_objectives=n_objectives, denominator=POOL_DENOMINATORS[n_objectives])
    settings = TradeoffSettings(epsilon=epsilon, delta=delta, pool=pool)

    def run(problem: TabularProblem, seed: int) -> Outcome:
        found = find(
            method,
            TabularOracle(problem),
            size=size,
            settings=settings,
            generator=generator_for(seed, method),
        )
        return Outcome((found.members.table.values,), found.n_calls)

    return run


def _random(size: int) -> Run:
    def run(problem: TabularProblem, seed: int) -> Outcome:
        generator = generator_for(seed, "random")
        draws = generator.dirichlet(np.ones(problem.n_objectives), size=(N_RANDOM, size))
        return Outcome(tuple(problem.optimal_values(anchors) for anchors in draws), size)

    return run


def _adaptive(size: int, *, n_calls: int) -> Run:
    def run(problem: TabularProblem, seed: int) -> Outcome:
        del seed
        rules = SearchSettings(tolerance=0.0, max_calls=n_calls)
        state = search(TabularOracle(problem), rules)
        values = state.payoffs.table.values
        if size < n_calls:
            stakes = Stakes(values=values, rows=values, criterion="multiplicative")
            values = values[list(best_members(stakes, size=size).members)]
        return Outcome((values,), n_calls, state.gap)

    return run


def _planned(size: int, *, n_calls: int) -> Run:
    def run(problem: TabularProblem, seed: int) -> Outcome:
        del seed
        found = planned(TabularOracle(problem), PlannedSettings(size=size, max_calls=n_calls))
        return Outcome((found.payoffs.table.values[list(found.members)],), n_calls)

    return run
