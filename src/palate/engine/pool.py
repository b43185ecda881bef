"""Pooling in torch: many rows' next-token distributions become one per request.

A batch may mix `single`, `log_linear` and `linear` requests with different numbers of rows; each
kind is one scatter over the rows. All in float32 on log-probabilities, with maxima subtracted.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan


@dataclass(frozen=True, eq=False)
class RowMap:
    """Which rows belong to which request, and how they count."""

    owner: Int[Tensor, " rows"]  # request of each row
    coefficient: Float[Tensor, " rows"]  # pool coefficient; one for `single`
    is_linear: Tensor  # `[requests]`, whether the request is pooled linearly

    @classmethod
    def of(cls, plans: list[Plan], *, device: torch.device) -> "RowMap":
        """The map of plans in normal form whose rows lie one after another."""
        owner = [i for i, plan in enumerate(plans) for _ in plan.rows]
        coefficient = [c for plan in plans for c in pool_coefficients(plan)]
        return cls(
            torch.tensor(owner, device=device),
            torch.tensor(coefficient, dtype=torch.float32, device=device),
            torch.tensor([plan.pool.kind == "linear" for plan in plans], device=device),
        )


def pool_coefficients(plan: Plan) -> tuple[float, ...]:
    """One coefficient per row; a controlled pool starts uniform."""
    if plan.pool.kind == "single":
        return (1.0,)
    return plan.pool.coefficients or (1.0 / len(plan.rows),) * len(plan.rows)


def pool_log_probs(
    logits: Float[Tensor, "rows ... vocab"], rows: RowMap
) -> Float[Tensor, "requests ... vocab"]:
    """Log-probabilities of every request's pooled distribution.

    log_linear:  log pi = sum_m a_m log p_m - log Z
    linear:      log pi = log sum_m alpha_m p_m
    single:      log pi = log p_1

    Args:
        logits: `[rows, ..., vocab]`, of any floating type.
        rows: Which request each row belongs to.

    Raises:
        InvalidInputError: a row's logits hold NaN, or a forbidden token has a negative coefficient.

    Source:
        Methods: explicit soup (arXiv 2605.20408), linear mixing (arXiv 2407.04181, probabilities).
    """
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    n_requests = len(rows.is_linear)
    if len(rows.owner) == n_requests:  # one row each: every pool of one row is that row
        return _require_finite(log_probs)
    shape = (n_requests, *log_probs.shape[1:])
    coefficient = rows.coefficient.view(-1, *(1,) * (log_probs.ndim - 1))
    zero = log_probs.new_zeros(shape)
    if not bool(rows.is_linear.any()):
        joined = zero.index_add(0, rows.owner, log_probs * coefficient)
        return torch.log_softmax(_require_finite(joined), dim=-1)
    lowest = log_probs.new_full(shape, torch.finfo(torch.float32).min)
    index = rows.owner.view_as(coefficient).expand_as(log_probs)
    top = lowest.scatter_reduce(0, index, log_probs, "amax")
    shares = torch.exp(log_probs - top[rows.owner]) * coefficient
    linear = torch.log(zero.index_add(0, rows.owner, shares)) + top
    if bool(rows.is_linear.all()):
        return _require_finite(linear)
    joined = zero.index_add(0, rows.owner, log_probs * coefficient)
    is_linear = rows.is_linear.view(-1, *(1,) * (log_probs.ndim - 1))
    is_sole = torch.bincount(rows.owner, minlength=n_requests).eq(1).view_as(is_linear)
    log_linear = torch.where(is_sole, joined, torch.log_softmax(joined, dim=-1))
    return _require_finite(torch.where(is_linear, linear, log_linear))


def _require_finite(log_probs: Tensor) -> Tensor:
    if bool(torch.isnan(log_probs).any() | torch.isposinf(log_probs).any()):
        raise InvalidInputError(
            "The pooled logits hold NaN or +infinity: a row is not finite, or a token that a row "
            "forbids has a negative coefficient; check the adapters and coefficients."
        )
    return log_probs
