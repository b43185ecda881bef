"""Implicit output soups in the running batch: one row proposes tokens, the pool accepts them.

The distribution is that of the explicit soup, exactly (`palate.soup.rejection`); what differs is
that a token costs several proposals. They are counted in the request.

Source: Spectral Souping, arXiv 2605.20408, implicit rule.

Deviation:
    1. Where the reference has no coefficient in the pool (coefficients that sum to one) it has no
       row; then the row of the largest coefficient proposes. Any proposal gives the same
       distribution, as long as it forbids nothing that the pool allows.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.protocols import SamplingParams
from palate.core.seeds import generator_for
from palate.engine.pool import RowMap
from palate.engine.request import RunningRequest
from palate.engine.sample import is_untruncated
from palate.soup.rejection import rejection_sampler, sample_implicit


def require_untruncated(sampling: SamplingParams) -> None:
    """Return when tokens can be sampled by rejection under these settings.

    Raises:
        InvalidInputError: top-k, top-p or a repetition rule acts on the pooled distribution, which
            an implicit soup does not compute token by token.
    """
    if not is_untruncated(sampling):
        raise InvalidInputError(
            "An implicit soup samples by rejection, without top_k, top_p and repetition rules; "
            "leave these out, or use the method 'output-soup', which has the same distribution."
        )


def sample_by_rejection(
    tokens: Tensor,
    requests: Sequence[RunningRequest],
    *,
    logits: Float[Tensor, "rows vocab"],
    log_probs: Float[Tensor, "requests vocab"],
    rows: RowMap,
) -> Tensor:
    """The batch's next tokens, with those of implicit requests sampled by rejection.

    Tokens, `[requests]`, are those sampled from the pooled distributions; constrained requests keep
    theirs.
    """
    for place, running in enumerate(requests):
        is_free = running.plan.pool.is_implicit and not running.is_constrained
        if is_free and running.request.sampling.temperature > 0:
            own = logits[rows.owner == place]
            proposal = torch.log_softmax(own[_proposer(running)].double(), dim=-1)
            tilt = log_probs[place].double() - proposal
            draws = sample_implicit(
                rejection_sampler(
                    proposal.cpu().numpy(),
                    np.nan_to_num(tilt.cpu().numpy(), nan=-np.inf, posinf=np.inf, neginf=-np.inf),
                    temperature=running.request.sampling.temperature,
                ),
                n_draws=1,
                generator=generator_for(running.request.seed, "implicit", len(running.tokens)),
            )
            running.n_proposals += int(draws.n_proposals[0])
            running.n_fallbacks += draws.n_fallbacks
            tokens[place] = int(draws.tokens[0])
    return tokens


def _proposer(running: RunningRequest) -> int:
    """The reference's row, or else the row of the largest coefficient."""
    for place, row in enumerate(running.plan.rows):
        if not any(row.coefficients):
            return place
    return int(np.argmax(running.plan.pool.coefficients))
