"""Pooling of rows that are known by truncated lists of log-probabilities only.

Servers list the log-probabilities of their `top_k` most probable tokens. A pool of such lists is
another distribution than the exact one; each function returns it with a bound on the total
variation between the two. Summed over tokens it bounds every reward in [0, 1] as well.

Source: methods mope M3-M5 (ours, with proofs there).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidInputError, NotCertifiedError
from palate.core.plan import Plan, Pool
from palate.engine.control import Controller
from palate.engine.remote import AnswerLog
from palate.engine.sample import sample_tokens

MASS_TOLERANCE = 1e-4  # lists may sum to this much more than one, from rounding

RowLists = Sequence[Mapping[int, float]]  # log-probabilities by token id, one list per row


@dataclass(frozen=True)
class Bounded:
    """A distribution over some tokens, and how far it can be from the exact one."""

    probs: Mapping[int, float]  # by token id, all above zero, sum one
    bound: float  # at least the total variation to the exact distribution, in [0, 1]

    @property
    def log_probs(self) -> dict[int, float]:
        """Log-probabilities of the tokens, nats."""
        return {token: math.log(prob) for token, prob in self.probs.items()}


def pool_lists(lists: RowLists, pool: Pool, *, n_vocab: int) -> Bounded:
    """The pool of the rows' lists; exact, with any coefficients, where lists are whole.

    Otherwise it is the pool of the listed parts, renormalised. With `m_i` the probability that row
    i did not list, a linear one is off by at most `sum_i share_i m_i`. A log-linear one is over the
    tokens `I` that every row listed; with `S = sum_I prod_i p_i^c_i` and
    `H = prod_i (1 - p_i(I))^c_i` it is off by at most `H / (H + S)`. That bound is much weaker: use
    longer lists. Rows with the coefficient zero are ignored.

    Raises:
        InvalidInputError: a list is no part of a distribution, truncated lists have a negative
            coefficient, or no listed token has any probability.

    Source: methods mope M3, M4.
    """
    given = pool.coefficients or (1.0,)
    is_whole = all(len(row) >= n_vocab for row in lists)
    if not is_whole and min(given) < 0.0:
        raise InvalidInputError(
            f"The coefficients {list(given)} hold a negative one, for which top-k lists give no "
            "bound; use whole vocabularies."
        )
    used = [row for row, c in enumerate(given) if c] or [0]
    tokens = sorted(set().union(*(lists[row] for row in used)))
    values = [[lists[row].get(token, -math.inf) for token in tokens] for row in used]
    listed = torch.tensor(values, dtype=torch.float64).clamp(max=0.0)  # [rows, tokens]
    _require_part(listed)
    coefficients = torch.tensor([given[row] for row in used], dtype=torch.float64)
    is_common = listed.isfinite().all(dim=0)
    if pool.kind == "log_linear":
        scores = torch.where(is_common, coefficients @ listed, -torch.inf)
    else:
        scores = torch.logsumexp(listed + coefficients.log().unsqueeze(1), dim=0)
    total = scores.logsumexp(dim=0)
    if total == -torch.inf:
        raise InvalidInputError(
            "No token is listed with a positive probability by every row that must list it; use "
            "longer lists."
        )
    probs = dict(zip(tokens, (scores - total).exp().tolist(), strict=True))
    bound = 0.0
    if not is_whole and pool.kind == "log_linear":
        rest = (1.0 - listed[:, is_common].exp().sum(dim=1)).clamp(min=0.0)
        bound = float(torch.sigmoid(coefficients @ rest.log() - total))
    elif not is_whole:
        bound = float(coefficients @ (1.0 - listed.exp().sum(dim=1)).clamp(min=0.0))
    return Bounded({token: prob for token, prob in probs.items() if prob > 0.0}, min(1.0, bound))


def _require_part(listed: Float[Tensor, "rows tokens"]) -> None:
    """Refuse log-probabilities that are no part of a distribution."""
    mass = float(listed.exp().sum(dim=1).max())
    if not mass <= 1.0 + MASS_TOLERANCE:
        raise InvalidInputError(
            f"The listed probabilities of a row sum to {mass:.6f}, which is more than one or not a "
            "number; use another server."
        )


def skip_small(
    shares: Float[np.ndarray, " experts"], *, threshold: float
) -> tuple[Float[np.ndarray, " experts"], float]:
    """The shares without those below the threshold, renormalised, and the bound of doing so.

    Shares lie on the simplex; the largest always stays. The bound is the total variation that it
    costs at most: the sum of the shares that are left out.

    Source: methods mope M5.
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
            pool = Pool(pool.kind, tuple((shares / shares.sum()).tolist()))
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
        log.trace(step.pool, [row.get(token, -math.inf) for row in step.lists])
        if log.accept(token, listed.get(token, -math.inf), listed, bound):
            return
        yield


def is_pooled(plan: Plan) -> bool:
    """Whether the plan has rows to pool."""
    return len(plan.rows) > 1 or plan.pool.controller is not None


def needs_whole_lists(plan: Plan) -> bool:
    """Whether truncated lists of the plan's rows have no bound: a coefficient is negative."""
    return plan.pool.kind == "log_linear" and min(plan.pool.coefficients, default=0.0) < 0


def _pooled(step: ListStep, log: AnswerLog) -> tuple[Bounded, float]:
    """The pool of a step's lists, and its bound with the rows that were left out."""
    pooled = pool_lists(step.lists, step.pool, n_vocab=log.base.n_vocab)
    return pooled, min(1.0, pooled.bound + step.lost)


def _sample(log: AnswerLog, listed: Mapping[int, float]) -> int:
    scores = torch.full((1, log.base.n_vocab), -torch.inf, dtype=torch.float64)
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
