"""The implicit output soup: propose from the reference, accept by the experts' tilts.

With `t(a) = sum_k lambda_k tilt_k(a)` over the allowed tokens and `M` its maximum, a token of the
reference is accepted with probability `exp(t(a) - M)`. The accepted mass is proportional to
`reference(a) exp(t(a))`: the distribution is that of the explicit soup, exactly.

Source: Spectral Souping, arXiv 2605.20408, implicit rule.

Deviations:
1. The acceptance probability is ours; the paper's is not known to us.
2. After `cap` proposals the token is sampled from the explicit soup and the fallback counted; the
   distribution stays exact.
3. Temperature T: propose from `reference^(1/T)`, accept with `exp((t - M) / T)`. Top-p needs the
   explicit soup: the set of tokens depends on the pooled distribution.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from palate.core.errors import InvalidInputError
from palate.soup.states import log_softmax

PROPOSALS_CAP = 32


@dataclass(frozen=True, eq=False)
class RejectionSampler:
    """Proposal and acceptance at one state."""

    proposal: Float[np.ndarray, " vocab"]  # log-probabilities proposed from: the tempered reference
    accept: Float[np.ndarray, " vocab"]  # probability of accepting each; zero where forbidden
    expected_proposals: float  # mean number of proposals per token without a cap


@dataclass(frozen=True, eq=False)
class Draws:
    """Tokens sampled implicitly."""

    tokens: Int[np.ndarray, " draws"]  # `[draws]`, token ids
    n_proposals: Int[np.ndarray, " draws"]  # `[draws]`, proposals each took, at most the cap
    n_fallbacks: int  # tokens that reached the cap and were sampled from the explicit soup


def rejection_sampler(
    reference: Float[np.ndarray, " vocab"],
    tilt: Float[np.ndarray, " vocab"],
    *,
    temperature: float = 1.0,
) -> RejectionSampler:
    """The sampler of one state.

    Args:
        reference: `[vocab]`, logits or log-probabilities of the reference.
        tilt: `[vocab]`, `sum_k lambda_k (log p_k - log p_0)` from normalised log-probabilities;
            minus infinity is a veto; ignored where the reference forbids, so that a mask of the
            reference costs no rejections.
        temperature: Above zero.

    Raises:
        InvalidInputError: shapes disagree, a tilt is NaN or plus infinity, no token is left, or the
            temperature is not positive.
    """
    if np.shape(reference) != np.shape(tilt) or np.ndim(tilt) != 1 or not temperature > 0:
        raise InvalidInputError(
            f"Reference {np.shape(reference)}, tilt {np.shape(tilt)} and temperature {temperature} "
            "do not make a sampler; give two vectors of one length and a temperature above 0."
        )
    is_open = ~np.isneginf(reference) & ~np.isneginf(tilt)
    if not is_open.any() or not np.all(np.isfinite(tilt[is_open])):
        raise InvalidInputError(
            "No token is left, or a tilt is NaN or plus infinity; loosen the mask or clip tilts."
        )
    proposal = log_softmax(np.where(is_open, reference, -np.inf) / temperature)
    shifted = np.where(is_open, tilt, -np.inf)
    accept = np.exp((shifted - shifted.max()) / temperature)
    return RejectionSampler(proposal, accept, float(1.0 / (np.exp(proposal) @ accept)))


def sample_implicit(
    sampler: RejectionSampler,
    *,
    n_draws: int,
    generator: np.random.Generator,
    cap: int = PROPOSALS_CAP,
) -> Draws:
    """Tokens from the soup, all proposing at once, round by round.

    `cap` is the most proposals per token.

    Raises:
        InvalidInputError: the cap is below one.
    """
    if cap < 1:
        raise InvalidInputError(f"The cap of {cap} proposals allows none; use one or more.")
    chances = np.exp(sampler.proposal)
    tokens = np.full(n_draws, -1)
    n_proposals = np.zeros(n_draws, dtype=int)
    for _ in range(cap):
        waiting = np.flatnonzero(tokens < 0)
        if not waiting.size:
            break
        proposed = generator.choice(len(chances), size=len(waiting), p=chances / chances.sum())
        is_accepted = generator.random(len(waiting)) < sampler.accept[proposed]
        tokens[waiting[is_accepted]] = proposed[is_accepted]
        n_proposals[waiting] += 1
    waiting = np.flatnonzero(tokens < 0)
    if waiting.size:
        explicit = chances * sampler.accept
        tokens[waiting] = generator.choice(
            len(chances), size=len(waiting), p=explicit / explicit.sum()
        )
    return Draws(tokens, n_proposals, int(waiting.size))
