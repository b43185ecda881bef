"""A user's soup as a record: what it rests on, and its predicted gain over the base model.

Source: ours, from the advantages (S1) of Spectral Souping, arXiv 2605.20408.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from palate.core.plan import Plan
from palate.core.types import Belief
from palate.soup.basis_file import SoupBasis
from palate.soup.states import ByExpert, States, soup_moments


@dataclass(frozen=True, eq=False)
class PredictedGain:
    """Predicted gain of a soup over the base model, per token, in reward units."""

    estimate: float  # at the belief's mean, the KL price already paid
    low: float  # lower end; only the uncertainty of the user's coefficients is in it
    high: float  # upper end


@dataclass(frozen=True, eq=False)
class PersonalSoup:
    """A user's soup and what it rests on; vectors are `[experts]`."""

    coefficients: ByExpert  # the served ones
    believed: ByExpert  # the belief's mean
    allowed: ByExpert  # within the bounds, before the trust region
    standard_errors: ByExpert  # of the believed ones
    scale: float  # what the trust region multiplied the allowed ones by
    # mean KL per token to the base model inside the region, nats, before experts that hardly act
    # were dropped; to the base with the safety expert when there is a floor
    kl: float
    gain: PredictedGain  # per token
    n_observations: int  # feedback items
    plan: Plan  # what the engine executes


def predicted_gain(
    served: ByExpert, states: States, *, believed: Belief, beta: float, confidence: float = 0.95
) -> PredictedGain:
    """Gain of the served soup over the base model by the believed coefficients, per token.

    At every state the value of a token is taken as `beta * sum_k lambda_k tilt_k` with believed
    coefficients; the gain is the soup's mean of it less the base's, less `beta` times the soup's
    KL. States are taken as given: what the soup does to later states is left out, and so is the
    part of the user's reward that the experts do not span.
    """
    log_normaliser, under_soup = soup_moments(served, states)
    under_base = np.einsum("sv,svk->sk", np.exp(states.reference), states.tilts)
    slope = beta * (under_soup - under_base).mean(axis=0)
    kl = float(np.mean(under_soup @ served - log_normaliser))
    estimate = float(slope @ believed.mean) - beta * kl
    half = float(ndtri(0.5 + confidence / 2) * np.sqrt(slope @ believed.covariance @ slope))
    return PredictedGain(estimate, estimate - half, estimate + half)


def shown_soup(
    soup: PersonalSoup, posterior: Belief, *, basis: SoupBasis, states: States
) -> PersonalSoup:
    """The soup as it is served, with the posterior's mean, standard errors and predicted gain.

    A belief is a mode with its curvature: quick to keep, good to serve, its intervals too narrow.
    The posterior is over scaled features, of the same feedback.
    """
    believed = basis.unscaled(posterior)
    gain = predicted_gain(
        soup.coefficients,
        states,
        believed=believed,
        beta=basis.beta,
        confidence=basis.settings.confidence,
    )
    errors = np.sqrt(np.diag(believed.covariance))
    return replace(soup, believed=believed.mean, standard_errors=errors, gain=gain)
