"""Pooling of rows that are known by truncated lists of log-probabilities only.

Servers list the log-probabilities of their `top_k` most probable tokens. A pool of such lists is
another distribution than the exact one; each function returns it with a bound on the total
variation between the two. Summed over tokens it bounds every reward in [0, 1] as well.

Source:
    methods mope M3-M5 (ours, with proofs there).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError, NotCertifiedError
from palate.core.plan import Plan, Pool
from palate.engine.control import Controller
from palate.engine.remote import AnswerLog
from palate.engine.sample import sample_tokens

MASS_TOLERANCE = 1e-4  # lists may sum to this much more than one, from rounding

RowLists = Sequence[Mapping[int, float]]  # log-probabilities by token id, one list per row


@dataclass(frozen=True)
class Listed:
    """The tokens that a row listed."""

    probs: Mapping[int, float]  # by token id; the rest to one is on tokens that are not listed

    def __post_init__(self) -> None:
        """Refuse numbers that are no part of a distribution."""
        if any(not 0.0 <= p <= 1.0 + MASS_TOLERANCE for p in self.probs.values()):
            raise InvalidInputError("A listed probability is negative, above one or not a number.")
        if self.mass > 1.0 + MASS_TOLERANCE:
            raise InvalidInputError(
                f"The listed probabilities sum to {self.mass:.6f}, which is more than one."
            )

    @property
    def mass(self) -> float:
        """Probability of the listed tokens together."""
        return math.fsum(self.probs.values())

    @property
    def missing(self) -> float:
        """Probability of the tokens that are not listed; zero within rounding."""
        return max(0.0, 1.0 - self.mass)


@dataclass(frozen=True)
class Bounded:
    """A distribution over some tokens, and how far it can be from the exact one."""

    probs: Mapping[int, float]  # by token id, sum one
    bound: float  # at least the total variation to the exact distribution, in [0, 1]

    @property
    def log_probs(self) -> dict[int, float]:
        """Log-probabilities of the tokens with any probability, nats."""
        return {token: math.log(prob) for token, prob in self.probs.items() if prob > 0.0}


def pool_listed(lists: Sequence[Listed], shares: Sequence[float]) -> Bounded:
    """The linear mixture of the listed parts, renormalised; off by at most `sum_i share_i m_i`.

    Shares lie on the simplex; a list of share zero is ignored.

    Raises:
        InvalidInputError: no listed token has any probability.

    Source:
        methods mope M3.
    """
    pooled: dict[int, float] = {}
    missing = 0.0
    for listed, share in zip(lists, shares, strict=True):
        if share == 0.0:
            continue
        missing += share * listed.missing
        for token, prob in listed.probs.items():
            pooled[token] = pooled.get(token, 0.0) + share * prob
    return Bounded(_normalised(pooled), min(1.0, missing))


def pool_listed_log_linear(lists: Sequence[Listed], coefficients: Sequence[float]) -> Bounded:
    """The log-linear pool over the tokens that every row listed, with its bound.

    With `I` the tokens listed by all, `S = sum_I prod_i p_i^c_i` and
    `H = prod_i (1 - p_i(I))^c_i`, total variation is at most `H / (H + S)`. It is much weaker than
    the bound of linear mixing: use longer lists.

    Args:
        lists: One per row, the reference counted as a row; each list sums to at most one.
        coefficients: One per row, on the simplex: no bound exists with a negative one.

    Raises:
        InvalidInputError: a coefficient is negative, or no token is listed by all rows.

    Source:
        methods mope M4.
    """
    if any(c < 0.0 for c in coefficients):
        raise InvalidInputError(
            f"The coefficients {list(coefficients)} hold a negative one, for which top-k lists "
            "give no bound; use whole vocabularies."
        )
    rows = [(row.probs, c) for row, c in zip(lists, coefficients, strict=True) if c > 0.0]
    common = set.intersection(*(set(probs) for probs, _ in rows))
    pooled = {
        token: math.exp(math.fsum(c * _log(probs[token]) for probs, c in rows))
        for token in sorted(common)
    }
    rest = [max(0.0, 1.0 - math.fsum(probs[t] for t in common)) for probs, _ in rows]
    excluded = math.exp(math.fsum(c * _log(r) for r, (_, c) in zip(rest, rows, strict=True)))
    return Bounded(_normalised(pooled), excluded / (excluded + math.fsum(pooled.values())))


def pool_lists(lists: RowLists, pool: Pool, *, n_vocab: int) -> Bounded:
    """The pool of the rows' lists; exact, with any coefficients, where lists are whole."""
    if all(len(row) >= n_vocab for row in lists):
        return Bounded(_pool_whole(lists, pool), 0.0)
    listed = [Listed({t: min(1.0, math.exp(v)) for t, v in row.items()}) for row in lists]
    if pool.kind == "log_linear":
        return pool_listed_log_linear(listed, pool.coefficients)
    return pool_listed(listed, pool.coefficients or (1.0,))


def skip_small(
    shares: Float[ndarray, " experts"], *, threshold: float
) -> tuple[Float[ndarray, " experts"], float]:
    """The shares without those below the threshold, renormalised, and the bound of doing so.

    Shares lie on the simplex; the largest always stays. The bound is the total variation that it
    costs at most: the sum of the shares that are left out.

    Source:
        methods mope M5.
    """
    used = np.where(shares >= threshold, shares, 0.0)
    if not used.any():
        used[int(np.argmax(shares))] = shares.max()
    return used / used.sum(), float(max(0.0, 1.0 - used.sum() / shares.sum()))


class ListSettings(Protocol):
    """What settings of engines that pool lists have in common."""

    top_k: int  # log-probabilities per row and token
    max_top_k: int  # the same where the bound is above the budget
    budget: float  # total variation per token above which an answer fails


@dataclass(frozen=True)
class ListStep:
    """The lists for one token."""

    lists: RowLists  # one per row of the pool
    pool: Pool  # with the coefficients for this token
    lost: float = 0.0  # total variation of leaving rows out, at most


def answer_from_lists(
    log: AnswerLog,
    settings: ListSettings,
    controllers: Mapping[str, Controller],
    list_rows: Callable[[Pool, int], ListStep],
) -> Iterator[None]:
    """Write an answer token by token from lists; yields after every token but the last.

    `list_rows` gives the rows' lists for the next token, given the pool and a length.

    Raises:
        NotCertifiedError: lists are too short for the budget.
    """
    running = log.running
    name = running.plan.pool.controller
    control_run = controllers[name].start() if name is not None else None
    longest = max(settings.top_k, settings.max_top_k)
    while True:
        pool = running.plan.pool
        if control_run is not None:
            shares = control_run.shares([running])[0].double()
            pool = Pool("linear", tuple((shares / shares.sum()).tolist()))
        step = list_rows(pool, longest if running.is_traced else settings.top_k)
        pooled, bound = _pooled(step, log)
        if bound > settings.budget and settings.top_k < longest:
            step = list_rows(pool, longest)
            pooled, bound = _pooled(step, log)
        if bound > settings.budget:
            raise NotCertifiedError(
                f"Token {len(running.tokens) + 1} is known only within {bound:.3f} total variation "
                f"from lists of {longest}, but the budget is {settings.budget}; raise max_top_k "
                "(and the server's --max-logprobs) or the budget."
            )
        listed = pooled.log_probs
        token = _sample(log, listed)
        log.record(listed, bound)
        log.trace(step.pool, [row.get(token, -math.inf) for row in step.lists])
        if log.accept(token, listed.get(token, -math.inf)):
            return
        yield


def is_pooled(plan: Plan) -> bool:
    """Whether the plan has rows to pool."""
    return len(plan.rows) > 1 or plan.pool.controller is not None


def needs_whole_lists(plan: Plan) -> bool:
    """Whether truncated lists of the plan's rows have no bound: a coefficient is negative."""
    return plan.pool.kind == "log_linear" and min(plan.pool.coefficients) < 0


def _pooled(step: ListStep, log: AnswerLog) -> tuple[Bounded, float]:
    """The pool of a step's lists, and its bound with the rows that were left out."""
    pooled = pool_lists(step.lists, step.pool, n_vocab=log.n_vocab)
    return pooled, min(1.0, pooled.bound + step.lost)


def _sample(log: AnswerLog, listed: Mapping[int, float]) -> int:
    scores = torch.full((1, log.n_vocab), -torch.inf, dtype=torch.float64)
    values = torch.tensor(list(listed.values()), dtype=torch.float64)
    scores[0, list(listed)] = values
    running = log.running
    token = sample_tokens(
        scores,
        sampling=[running.request.sampling],
        prompts=[running.contexts[0]],
        answers=[running.tokens],
        uniform=torch.tensor([running.uniforms[len(running.tokens)]]),
    )
    return int(token[0])


def _pool_whole(lists: RowLists, pool: Pool) -> dict[int, float]:
    tokens = sorted(lists[0])
    rows = torch.tensor([[row[token] for token in tokens] for row in lists], dtype=torch.float64)
    coefficients = torch.tensor(pool.coefficients or (1.0,), dtype=torch.float64)[:, None]
    pooled: Any
    if pool.kind == "log_linear":
        pooled = torch.softmax((coefficients * rows).sum(dim=0), dim=0)
    else:
        used = coefficients[:, 0] > 0
        pooled = (rows[used].exp() * coefficients[used]).sum(dim=0)
    return dict(zip(tokens, pooled.tolist(), strict=True))


def _normalised(probs: Mapping[int, float]) -> dict[int, float]:
    total = math.fsum(probs.values())
    if total <= 0.0:
        raise InvalidInputError(
            "No token is listed with a positive probability by every row that must list it; use "
            "longer lists."
        )
    return {token: prob / total for token, prob in probs.items()}


def _log(value: float) -> float:
    return math.log(value) if value > 0.0 else -math.inf
