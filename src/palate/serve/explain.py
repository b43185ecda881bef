"""Who wrote which token of an answer, for any plan; runs on the engine's thread.

Of a mixture, a row's share is the probability, given the token, that the row wrote it:
`share p / sum share p`. Of a soup with tilts `tau_k = log p_k - log p_0`, expert k raised the token
by `lift_k = lambda_k (tau_k - E_soup tau_k)` nats. Of a token that was raised by `L`, the sum of
all lifts above zero, the base's own part is `exp(-L)`; the rest is the experts' by their lifts.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from palate.core.plan import Plan
from palate.engine.bank import AdapterBank
from palate.engine.detokenize import token_texts
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.request import RunningRequest
from palate.library.features import MAX_TILT, expert_rows
from palate.models.load import Base
from palate.serve.wire.palate import TokenOut

REFERENCE = "base"


def explain(base: Base, bank: AdapterBank, answer: RunningRequest) -> list[TokenOut]:
    """Every token with the shares of its authors; the end token is left out."""
    names, shares = _authors(base, bank, answer)
    texts = token_texts(base, answer.tokens)
    rows = zip(answer.tokens, texts, answer.log_probs, shares.tolist(), strict=True)
    return [
        TokenOut(text=text, log_prob=log_prob, wrote=dict(zip(names, row, strict=True)))
        for token, text, log_prob, row in rows
        if token not in base.stop_ids
    ]


def _authors(
    base: Base, bank: AdapterBank, answer: RunningRequest
) -> tuple[list[str], Float[ndarray, "tokens names"]]:
    plan = answer.plan
    if plan.pool.kind == "linear":
        log_probs = np.array(answer.row_log_probs)
        return [_name(row.coefficients, bank) for row in plan.rows], mixture_authors(
            np.array(answer.shares), log_probs
        )
    row = plan.rows[0].coefficients
    if plan.pool.kind == "single" and sum(c != 0.0 for c in row) == 1 and 1.0 in row:
        return [_name(row, bank)], np.ones((len(answer.tokens), 1))
    item = Scored(answer.contexts[0], tuple(answer.tokens))
    active, shares = soup_authors(base, bank, plan=plan, item=item)
    names = [REFERENCE, *(bank.names[k] for k in active)]
    return names, np.column_stack([1.0 - shares.sum(axis=1), shares])


def mixture_authors(
    shares: Float[ndarray, "tokens rows"], log_probs: Float[ndarray, "tokens rows"]
) -> Float[ndarray, "tokens rows"]:
    """`[tokens, rows]`: probability, given each token, that a row wrote it."""
    joint = shares * np.exp(log_probs - log_probs.max(axis=1, keepdims=True))
    return joint / joint.sum(axis=1, keepdims=True)


def soup_authors(
    base: Base, bank: AdapterBank, *, plan: Plan, item: Scored
) -> tuple[list[int], Float[ndarray, "tokens experts"]]:
    """A soup's active experts, and the part of each token's probability that each accounts for."""
    coefficients = _soup_of(plan)
    active = [int(k) for k in np.flatnonzero(coefficients)]
    if not active:
        return [], np.zeros((len(item.answer), 0))
    rows = expert_rows(n_experts=plan.n_experts, experts=active)
    log_probs = row_distributions(base, bank, plan=rows, item=item).double()
    tilts = (log_probs[1:] - log_probs[:1]).clamp(-MAX_TILT, MAX_TILT)  # [experts, tokens, vocab]
    scale = torch.tensor(coefficients[active], device=tilts.device).view(-1, 1, 1)
    if plan.pool.kind == "single":
        soup = row_distributions(base, bank, plan=plan, item=item)[0].double()
    else:
        soup = torch.log_softmax(log_probs[0] + (scale * tilts).sum(dim=0), dim=-1)
    mean = (soup.exp() * tilts).sum(dim=-1)
    tokens = torch.tensor(item.answer, device=tilts.device).view(1, -1, 1)
    own = tilts.gather(2, tokens.expand(len(active), -1, 1)).squeeze(2)
    lifts = (scale.squeeze(2) * (own - mean)).clamp(min=0.0).T.numpy(force=True)
    total = lifts.sum(axis=1, keepdims=True)
    share = np.divide(lifts, total, out=np.zeros_like(lifts), where=total > 0)
    return active, (1.0 - np.exp(-total)) * share


def _soup_of(plan: Plan) -> Float[ndarray, " experts"]:
    """The coefficients of a parameter or an output soup."""
    rows = np.array([row.coefficients for row in plan.rows])
    return rows[0] if plan.pool.kind == "single" else np.array(plan.pool.coefficients) @ rows


def _name(coefficients: tuple[float, ...], bank: AdapterBank) -> str:
    active = [k for k, value in enumerate(coefficients) if value != 0.0]
    return bank.names[active[0]] if active else REFERENCE
