"""From what is believed of a user to the soup that is served, with what it rests on.

The most probable coefficients within the library's bounds are shrunk into the trust region,
relieved of experts that hardly act, and made a plan. Without feedback the base model answers (and
the safety expert, if there is a floor): the mean of a population is nobody's taste.

Source: Spectral Souping, arXiv 2605.20408, online phase; trust region and floor are ours.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import ndtri

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.types import Belief
from palate.soup.basis import active_experts, expert_spread, tilt_matrix
from palate.soup.basis_file import SoupBasis
from palate.soup.normalised import States, soup_moments
from palate.soup.plans import SoupMethod, soup_plan
from palate.soup.settings import SoupSettings
from palate.soup.trust import mode_within, trust_region


@dataclass(frozen=True, eq=False)
class PredictedGain:
    """What the soup is believed to gain over the base model, per token, in reward units.

    Attributes:
        estimate: At the belief's mean, the KL price already paid.
        low: Lower end; only the uncertainty of the user's taste is in it.
        high: Upper end.
    """

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class PersonalSoup:
    """A user's soup and what it rests on.

    Attributes:
        coefficients: `[experts]`, as served.
        believed: `[experts]`, the belief's mean.
        allowed: `[experts]`, the most probable within the bounds, before trust region and
            threshold.
        standard_errors: `[experts]`, of the believed ones.
        scale: What the trust region multiplied them by.
        kl: Mean KL per token to the base model inside the region, nats, before experts that hardly
            act were dropped; to the base with the safety expert when there is a floor.
        gain: Predicted, per token.
        n_observations: Feedback items.
        plan: What serves it.
    """

    coefficients: Float[ndarray, " experts"]
    believed: Float[ndarray, " experts"]
    allowed: Float[ndarray, " experts"]
    standard_errors: Float[ndarray, " experts"]
    scale: float
    kl: float
    gain: PredictedGain
    n_observations: int
    plan: Plan


def personal_soup(
    belief: Belief,
    *,
    basis: SoupBasis,
    states: States,
    method: SoupMethod,
    settings: SoupSettings | None = None,
    floor: tuple[int, float] | None = None,
) -> PersonalSoup:
    """The soup that serves what is believed of a user.

    Args:
        belief: Over scaled features, as fitted with `basis.features`.
        basis: The library's `soup.json`.
        states: Recent or calibration states with all experts' tilts, at least one.
        method: `soup` or `output-soup`.
        settings: Bounds, budgets and thresholds.
        floor: Index and coefficient of a safety expert that feedback cannot lower.

    Raises:
        InvalidInputError: the states or the belief speak of other experts, or there are no states.
        InvalidCoefficientsError: the floor names no expert, or the belief is not finite.
    """
    chosen = settings or SoupSettings()
    n_experts = len(basis.experts)
    if states.tilts.shape[2] != n_experts or len(belief.mean) != n_experts:
        raise InvalidInputError(
            f"The belief speaks of {len(belief.mean)} experts, the states of "
            f"{states.tilts.shape[2]} and the basis of {n_experts}; use one library's."
        )
    believed = basis.coefficients(belief.mean)
    covariance = belief.covariance / np.outer(basis.feature_scales, basis.feature_scales)
    least, most = chosen.least_coefficient, chosen.most_coefficient
    allowed = mode_within(Belief(believed, covariance), least=least, most=most)
    wanted = allowed if belief.n_observations else np.zeros(n_experts)
    is_early = belief.n_observations < chosen.n_early
    trusted = trust_region(
        wanted,
        states,
        budget=chosen.early_budget if is_early else chosen.budget,
        floor=floor,
        largest_scale=min(chosen.largest_scale, _room(wanted, least=least, most=most)),
    )
    spread = expert_spread(tilt_matrix(states.reference, np.moveaxis(states.tilts, -1, 0)))
    served = active_experts(trusted.coefficients, spread=spread, threshold=chosen.active_threshold)
    if floor is not None:
        served[floor[0]] = trusted.coefficients[floor[0]]
    return PersonalSoup(
        coefficients=served,
        believed=believed,
        allowed=allowed,
        standard_errors=np.sqrt(np.diag(covariance)),
        scale=trusted.scale,
        kl=trusted.kl,
        gain=predicted_gain(
            served,
            states,
            believed=Belief(believed, covariance),
            beta=basis.beta,
            confidence=chosen.confidence,
        ),
        n_observations=belief.n_observations,
        plan=soup_plan(served, method=method),
    )


def shown_soup(
    soup: PersonalSoup, posterior: Belief, *, basis: SoupBasis, states: States
) -> PersonalSoup:
    """The soup as it is served, with the posterior in what is said of the belief.

    A belief is a mode with its curvature, quick to keep and as good to serve, but its intervals are
    too narrow. What is believed, its standard errors and the predicted gain are the posterior's.

    Args:
        soup: Made of the belief.
        posterior: Mean and covariance over scaled features, of the same feedback.
        basis: The library's `soup.json`.
        states: Where the gain is measured.
    """
    scales = basis.feature_scales
    believed = Belief(
        basis.coefficients(posterior.mean), posterior.covariance / np.outer(scales, scales)
    )
    return replace(
        soup,
        believed=believed.mean,
        standard_errors=np.sqrt(np.diag(believed.covariance)),
        gain=predicted_gain(
            soup.coefficients,
            states,
            believed=believed,
            beta=basis.beta,
            confidence=basis.settings.confidence,
        ),
    )


def _room(
    coefficients: Float[ndarray, " experts"], *, least: float | None, most: float | None
) -> float:
    """How many times the coefficients may be enlarged before one leaves the bounds."""
    bounds = np.where(coefficients > 0, np.inf if most is None else most, np.inf)
    bounds = np.where(coefficients < 0, -np.inf if least is None else least, bounds)
    inside = coefficients != 0
    return float(np.min(bounds[inside] / coefficients[inside], initial=np.inf))


def predicted_gain(
    served: Float[ndarray, " experts"],
    states: States,
    *,
    believed: Belief,
    beta: float,
    confidence: float = 0.95,
) -> PredictedGain:
    """Gain of the served soup over the base model for the believed taste, per token.

    At every state the value of a token is taken as `beta * sum_k lambda_k tilt_k` with believed
    coefficients; the gain is the soup's mean of it less the base's, less `beta` times the soup's
    KL. States are taken as given: what the soup does to later states is left out, and so is the
    part of the user's taste that the experts do not span.

    Args:
        served: `[experts]`, coefficients in use.
        states: Where the gain is measured.
        believed: Mean and covariance of the user's coefficients.
        beta: Price of one nat of KL.
        confidence: Of the interval.
    """
    log_normaliser, under_soup = soup_moments(served, states)
    under_base = np.einsum("sv,svk->sk", np.exp(states.reference), states.tilts)
    slope = beta * (under_soup - under_base).mean(axis=0)
    kl = float(np.mean(under_soup @ served - log_normaliser))
    estimate = float(slope @ believed.mean) - beta * kl
    half = float(ndtri(0.5 + confidence / 2) * np.sqrt(slope @ believed.covariance @ slope))
    return PredictedGain(estimate, estimate - half, estimate + half)
