"""Who wrote which token of an answer, for any plan; runs on the engine's thread.

Of a mixture, a row's share is the probability, given the token, that the row wrote it:
`share p / sum share p`. Of a soup, see `palate.library.explain.soup_authors`.
"""

import numpy as np
from jaxtyping import Float

from palate.engine.bank import AdapterBank
from palate.engine.detokenize import token_texts
from palate.engine.logprobs import Scored
from palate.engine.request import RunningRequest
from palate.library.explain import REFERENCE, soup_authors
from palate.models.load import Base
from palate.serve.wire.palate import TokenOut


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
) -> tuple[list[str], Float[np.ndarray, "tokens names"]]:
    plan = answer.plan
    if plan.pool.has_authors:  # a log-linear pool's by the same formula, which is not exact there
        names = [_name(row.coefficients, bank) for row in plan.rows]
        return names, mixture_authors(np.array(answer.shares), np.array(answer.row_log_probs))
    row = plan.rows[0].coefficients
    if plan.pool.kind == "single" and sum(c != 0.0 for c in row) == 1 and 1.0 in row:
        return [_name(row, bank)], np.ones((len(answer.tokens), 1))
    item = Scored(answer.contexts[0], tuple(answer.tokens))
    return soup_authors(base, bank, plan=plan, item=item)


def mixture_authors(
    shares: Float[np.ndarray, "tokens rows"], log_probs: Float[np.ndarray, "tokens rows"]
) -> Float[np.ndarray, "tokens rows"]:
    """`[tokens, rows]`: probability, given each token, that a row wrote it."""
    joint = shares * np.exp(log_probs - log_probs.max(axis=1, keepdims=True))
    return joint / joint.sum(axis=1, keepdims=True)


def _name(coefficients: tuple[float, ...], bank: AdapterBank) -> str:
    return bank.names[int(np.argmax(coefficients))] if any(coefficients) else REFERENCE
