"""Who wrote which token: an answer of the mixture under the controller, and a soup's.

Of a soup with tilts `tau_k = log p_k - log p_0`, expert k raised the token by
`lift_k = lambda_k (tau_k - E_soup tau_k)` nats. Of a token that was raised by `L`, the sum of all
lifts above zero, the base's own part is `exp(-L)`; the rest is the experts' by their lifts.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from palate.core.decision import Known
from palate.core.files import write_text_atomic
from palate.core.plan import Plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.detokenize import token_texts
from palate.engine.logprobs import Scored, row_distributions
from palate.library.features import MAX_TILT, expert_rows
from palate.library.generate import answer_seed
from palate.library.library import Library
from palate.mixture.decode import experts_of
from palate.mixture.explain import Explanation, explain, render_page
from palate.models.load import Base

REFERENCE = "base"


def explain_answer(
    library: Library,
    prompt: str,
    preference: Mapping[str, float],
    *,
    sampling: SamplingParams,
    seed: int = 0,
    out: Path | None = None,
) -> Explanation:
    """An answer, explained token by token; written as a page if `out` names one.

    Raises:
        InvalidInputError: the preference is off the simplex, an objective has no expert, or the
            library has no controller.
    """
    decision = library.decide(prompt, Known(preference=preference), method="mixture")
    text = library.format(decision.messages)
    request = Request(text, decision.plan, sampling, seed=answer_seed(seed))
    (traced,) = library.engine.trace([request])
    tokens = traced.completion.tokens
    explanation = explain(
        prompt=prompt,
        experts=[library.bank.names[expert] for expert in experts_of(request.plan)],
        texts=[
            "⏹" if token in library.base.stop_ids else text
            for token, text in zip(tokens, token_texts(library.base, tokens), strict=True)
        ],
        shares=traced.shares,
        expert_log_probs=traced.row_log_probs,
    )
    if out is not None:
        write_text_atomic(out, render_page(explanation))
    return explanation


def soup_authors(
    base: Base, bank: AdapterBank, *, plan: Plan, item: Scored
) -> tuple[list[str], Float[np.ndarray, "tokens authors"]]:
    """The base and a soup's active experts, and each one's part of each token's probability."""
    rows = np.array([row.coefficients for row in plan.rows])
    is_single = plan.pool.kind == "single"
    coefficients = rows[0] if is_single else np.array(plan.pool.coefficients) @ rows
    active = [int(k) for k in np.flatnonzero(coefficients)]
    if not active:
        return [REFERENCE], np.ones((len(item.answer), 1))
    alone = expert_rows(n_experts=plan.n_experts, experts=tuple(active))
    log_probs = row_distributions(base, bank, plan=alone, item=item).double()
    tilts = (log_probs[1:] - log_probs[:1]).clamp(-MAX_TILT, MAX_TILT)  # [experts, tokens, vocab]
    scale = torch.tensor(coefficients[active], device=tilts.device).view(-1, 1, 1)
    if is_single:
        soup = row_distributions(base, bank, plan=plan, item=item)[0].double()
    else:
        soup = torch.log_softmax(log_probs[0] + (scale * tilts).sum(dim=0), dim=-1)
    mean = (soup.exp() * tilts).sum(dim=-1)
    tokens = torch.tensor(item.answer, device=tilts.device).view(1, -1, 1)
    own = tilts.gather(2, tokens.expand(len(active), -1, 1)).squeeze(2)
    lifts = (scale.squeeze(2) * (own - mean)).clamp(min=0.0).T.numpy(force=True)
    total = lifts.sum(axis=1, keepdims=True)
    share = np.divide(lifts, total, out=np.zeros_like(lifts), where=total > 0)
    parts = (1.0 - np.exp(-total)) * share
    authors = [REFERENCE, *(bank.names[k] for k in active)]
    return authors, np.column_stack([1.0 - parts.sum(axis=1), parts])
