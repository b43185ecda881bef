"""Trade-off: how much a portfolio of each size loses, by the method that found its members.

Methods: `uniform` and `random` anchors, one oracle call per member; `adaptive` search stopped at
the size; `planned` search with twice as many calls; `palm`, a ratio grid pruned to the size; and
`pool`, the best members of a fine pool, as a reference for what is possible.

Source:
    palm.md section 10.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.metrics.diversity import usage_perplexity
from palate.portfolio.adaptive import Ledger, Oracle, SearchSettings
from palate.portfolio.everybody import Criterion, Stakes, best_members
from palate.portfolio.grid import ratio_grid
from palate.portfolio.payoffs import Payoffs
from research.portfolio.baselines import random_anchors, subset, uniform_anchors
from research.portfolio.exact import search
from research.portfolio.planned import PlannedSettings, planned

MethodName = Literal["uniform", "random", "adaptive", "planned", "palm", "pool"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)


@dataclass(frozen=True, kw_only=True)
class TradeoffSettings:
    """How the methods are run.

    Attributes:
        criterion: By which members are chosen where a method chooses.
        epsilon: Of the ratio grid.
        delta: Of the ratio grid.
        pool: `[anchors, objectives]`, the fine pool.
    """

    criterion: Criterion = "multiplicative"
    epsilon: float = 0.3
    delta: float = 0.1
    pool: Float[ndarray, "anchors objectives"]


@dataclass(frozen=True, eq=False)
class Found:
    """A portfolio that a method found.

    Attributes:
        members: Their payoffs.
        n_calls: Policies made for it.
    """

    members: Payoffs
    n_calls: int


@dataclass(frozen=True)
class Losses:
    """What a list of users loses with a portfolio.

    Attributes:
        multiplicative: Largest share lost.
        additive: Largest amount lost, in reward units.
        mean: Mean amount lost.
        percentile_95: Amount lost by the user at the 95th percentile.
        perplexity: How many members are in use, `exp(entropy of usage)`.
    """

    multiplicative: float
    additive: float
    mean: float
    percentile_95: float
    perplexity: float


def find(
    method: MethodName,
    oracle: Oracle,
    *,
    size: int,
    settings: TradeoffSettings,
    generator: np.random.Generator,
) -> Found:
    """The portfolio of this size that a method finds; fewer members where a method needs no more.

    Raises:
        InvalidInputError: a size or setting out of range.
    """
    n_objectives = len(oracle.objectives)
    if method == "uniform":
        return _made(oracle, uniform_anchors(n_objectives=n_objectives, size=size))
    if method == "random":
        return _made(
            oracle, random_anchors(n_objectives=n_objectives, size=size, generator=generator)
        )
    if method == "palm":
        anchors = ratio_grid(
            n_objectives=n_objectives, epsilon=settings.epsilon, delta=settings.delta
        )
        return _pruned(_made(oracle, anchors), size=size, criterion=settings.criterion)
    if method == "pool":
        return _pruned(_made(oracle, settings.pool), size=size, criterion=settings.criterion)
    run_search: Callable[..., Found] = _adaptive if method == "adaptive" else _planned
    return run_search(oracle, size=size, settings=settings)


def users_losses(
    values: Float[ndarray, "members objectives"],
    *,
    users: Float[ndarray, "users objectives"],
    best_values: Float[ndarray, " users"],
) -> Losses:
    """What these users lose against the best value of each.

    Args:
        values: `[members, objectives]`.
        users: `[users, objectives]`.
        best_values: `[users]`, positive.
    """
    worth = users @ values.T
    losses = best_values - worth.max(axis=1)
    usage = np.bincount(worth.argmax(axis=1), minlength=len(values)).astype(float)
    return Losses(
        multiplicative=float(np.max(losses / best_values)),
        additive=float(losses.max()),
        mean=float(losses.mean()),
        percentile_95=float(np.quantile(losses, 0.95)),
        perplexity=usage_perplexity(usage),
    )


def kl_between(payoffs: Payoffs) -> Float[ndarray, "policies policies"]:
    """KL in nats from each policy (column) to each policy (row), where both are optimal.

    `beta KL(pi_j || pi_i)` is what the user whom `i` was made for loses with `j`; so a payoff
    table with known preferences is enough. Negative entries say that a policy is not optimal.

    Source:
        palm.md C3.
    """
    table = payoffs.table
    worth = table.preferences @ table.values.T
    return (np.diag(worth)[:, None] - worth) / table.beta


def _made(oracle: Oracle, anchors: Float[ndarray, "anchors objectives"]) -> Found:
    ledger = Ledger(oracle)
    names = dict.fromkeys(ledger.policy(anchor) for anchor in anchors)
    return Found(oracle.payoffs(tuple(names)), len(names))


def _pruned(found: Found, *, size: int, criterion: Criterion) -> Found:
    if found.members.n_policies <= size:
        return found
    values = found.members.table.values
    chosen = best_members(Stakes(values=values, rows=values, criterion=criterion), size=size)
    return Found(subset(found.members, chosen.members), found.n_calls)


def _adaptive(oracle: Oracle, *, size: int, settings: TradeoffSettings) -> Found:
    """Fewer members than objectives are the best of the unit vectors' policies."""
    n_calls = max(size, len(oracle.objectives))
    rules = SearchSettings(tolerance=0.0, max_calls=n_calls, criterion=settings.criterion)
    payoffs = search(oracle, rules).payoffs
    return _pruned(Found(payoffs, payoffs.n_policies), size=size, criterion=settings.criterion)


def _planned(oracle: Oracle, *, size: int, settings: TradeoffSettings) -> Found:
    n_calls = max(2 * size, len(oracle.objectives) + 1)
    found = planned(
        oracle, PlannedSettings(size=size, max_calls=n_calls, criterion=settings.criterion)
    )
    return Found(subset(found.payoffs, found.members), found.payoffs.n_policies)
