"""Who wrote which token of an answer, for any plan."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.plan import Plan
from palate.engine.bank import AdapterBank
from palate.engine.batch import RunningRequest
from palate.engine.detokenize import token_texts
from palate.engine.logprobs import Scored
from palate.models.load import Base
from palate.serve.scoring import REFERENCE, mixture_authors, soup_authors
from palate.serve.wire.palate import TokenOut


def explain(base: Base, bank: AdapterBank, running: RunningRequest) -> list[TokenOut]:
    """Every token with the shares of those who wrote it; the end token is left out."""
    names, shares = _authors(base, bank, running)
    ends = base.stop_ids
    texts = token_texts(base, running.tokens)
    rows = zip(running.tokens, texts, running.log_probs, shares, strict=True)
    return [
        TokenOut(
            text=text,
            log_prob=log_prob,
            wrote={name: float(share) for name, share in zip(names, row, strict=True)},
        )
        for token, text, log_prob, row in rows
        if token not in ends
    ]


def _authors(
    base: Base, bank: AdapterBank, running: RunningRequest
) -> tuple[list[str], Float[ndarray, "tokens names"]]:
    plan, n_tokens = running.plan, len(running.tokens)
    if plan.pool.kind == "linear":
        shares = mixture_authors(np.array(running.shares), np.array(running.row_log_probs))
        return [_name(row.coefficients, bank) for row in plan.rows], shares
    sole = _sole(plan)
    if sole is not None:
        return [bank.names[sole]], np.ones((n_tokens, 1))
    item = Scored(running.contexts[0], tuple(running.tokens))
    active, shares = soup_authors(base, bank, plan=plan, item=item)
    names = [REFERENCE, *(bank.names[k] for k in active)]
    return names, np.column_stack([1.0 - shares.sum(axis=1), shares])


def _sole(plan: Plan) -> int | None:
    """The expert that a plan of one row is, or `None`."""
    if plan.pool.kind != "single":
        return None
    row = plan.rows[0].coefficients
    active = [k for k, value in enumerate(row) if value != 0.0]
    return active[0] if len(active) == 1 and row[active[0]] == 1.0 else None


def _name(coefficients: tuple[float, ...], bank: AdapterBank) -> str:
    active = [k for k, value in enumerate(coefficients) if value != 0.0]
    return bank.names[active[0]] if active else REFERENCE
