"""What the model says of finished answers: their features, and who wrote which token.

All of it runs on the engine's thread.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from palate.core.plan import Plan
from palate.engine.bank import AdapterBank
from palate.engine.logprobs import Scored, row_distributions
from palate.library.features import MAX_TILT, expert_rows
from palate.models.load import Base

REFERENCE = "base"


def mixture_authors(
    shares: Float[ndarray, "tokens rows"], said: Float[ndarray, "tokens rows"]
) -> Float[ndarray, "tokens rows"]:
    """The probability, given each token, that a row wrote it: `share p / sum share p`."""
    top = said.max(axis=1, keepdims=True)
    joint = shares * np.exp(said - top)
    return joint / joint.sum(axis=1, keepdims=True)


def soup_authors(
    base: Base, bank: AdapterBank, *, plan: Plan, item: Scored
) -> tuple[list[int], Float[ndarray, "tokens experts"]]:
    """The experts of a soup, and the part of each token's probability that each accounts for.

    With tilts `tau_k = log p_k - log p_0`, expert k raised the token by
    `lift_k = lambda_k (tau_k - E_soup tau_k)` nats. Of a token that was raised by `L`, the sum of
    all lifts above zero, the base's own part is `exp(-L)`; the rest is the experts' by their lifts.
    """
    active, coefficients = _soup_of(plan)
    if not active:
        return [], np.zeros((len(item.answer), 0))
    rows = expert_rows(n_experts=plan.n_experts, experts=active)
    said = row_distributions(base, bank, plan=rows, item=item).double()
    tilts = (said[1:] - said[:1]).clamp(-MAX_TILT, MAX_TILT)  # [experts, tokens, vocab]
    scale = torch.tensor(coefficients, dtype=torch.float64, device=tilts.device).view(-1, 1, 1)
    if plan.pool.kind == "single":
        soup = row_distributions(base, bank, plan=plan, item=item)[0].double()
    else:
        soup = torch.log_softmax(said[0] + (scale * tilts).sum(dim=0), dim=-1)
    mean = (soup.exp() * tilts).sum(dim=-1)
    drawn = torch.tensor(item.answer, device=tilts.device).view(1, -1, 1)
    own = tilts.gather(2, drawn.expand(len(active), -1, 1)).squeeze(2)
    lifts = (scale.squeeze(2) * (own - mean)).clamp(min=0.0).T.numpy(force=True)
    total = lifts.sum(axis=1, keepdims=True)
    share = np.divide(lifts, total, out=np.zeros_like(lifts), where=total > 0)
    return active, (1.0 - np.exp(-total)) * share


def _soup_of(plan: Plan) -> tuple[list[int], list[float]]:
    """Active experts and their coefficients, of a parameter or an output soup."""
    values = np.zeros(plan.n_experts)
    if plan.pool.kind == "single":
        values += np.array(plan.rows[0].coefficients)
    else:
        for row, share in zip(plan.rows, plan.pool.coefficients, strict=True):
            values += share * np.array(row.coefficients)
    active = [int(k) for k in np.flatnonzero(values)]
    return active, [float(values[k]) for k in active]
