"""Spectral Souping from beginning to end: basis, coefficients, plan.

Offline, once for a library (methods 4.1):

    tilts         tau_k(s, a) = log p_k(a | s) - log p_0(a | s)          `palate.soup.states`
    tilt matrix   M[(s, a), k] = sqrt(p_0) (tau_k - E_0 tau_k)           `basis.tilt_matrix`
    rank, order   singular values of M; greedy determinant               `measure_spectrum`
    prior         lambda ~ N(mu, S) over users                           `learning`

Online, for each user (methods 4.2):

    features      u_i = beta (tau(y_i) - tau(y'_i)) / scale              `SoupBasis.features`
    stage 1       logistic fit of lambda to labels, convex               `palate.preferences`
    stage 2       the same with normalisers, n >= 100: a study, `palate soup fit --refine`
    trust region  t lambda with mean KL per token <= budget (S8)         `trust`
    plan          W + sum lambda_k Delta_k, or log p_0 + sum lambda_k tau_k pooled   `plans`

Without feedback the base model answers (and the safety expert, if there is a floor): the mean of a
population is no user's preference.

Source: Spectral Souping, arXiv 2605.20408. Deviations: the low dimension is measured, not assumed;
trust region, bounds and safety floor are ours.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.types import Belief
from palate.soup.basis import (
    active_experts,
    effective_rank,
    expert_spread,
    select_experts,
    tilt_matrix,
)
from palate.soup.learning import feature_scales
from palate.soup.plans import SoupMethod, soup_plan
from palate.soup.settings import SoupSettings
from palate.soup.states import ByExpert, States, require_coefficients, soup_moments
from palate.soup.trust import headroom, mode_within, trust_region


@dataclass(frozen=True, eq=False)
class PersonalSoup:
    """A user's soup and what it rests on; vectors are `[experts]`."""

    coefficients: ByExpert  # the served ones
    belief: Belief  # over the experts' coefficients
    allowed: ByExpert  # the believed ones within the bounds, before the trust region
    scale: float  # what the trust region multiplied the allowed ones by
    # mean KL per token to the base model inside the region, nats, before experts that hardly act
    # were dropped; to the base with the safety expert when there is a floor
    kl: float
    method: SoupMethod  # by which it is served

    @property
    def standard_errors(self) -> ByExpert:
        """Of the believed coefficients, `[experts]`."""
        return np.sqrt(np.diag(self.belief.covariance))

    @property
    def plan(self) -> Plan:
        """What the engine executes."""
        return soup_plan(self.coefficients, method=self.method)


def predicted_gain(
    served: ByExpert, states: States, *, believed: Belief, beta: float
) -> tuple[float, float]:
    """Gain of the served soup over the base model by the believed coefficients, per token.

    At every state the value of a token is taken as `beta * sum_k lambda_k tilt_k` with believed
    coefficients; the gain is the soup's mean of it less the base's, less `beta` times the soup's
    KL. States are taken as given: what the soup does to later states is left out, and so is the
    part of the user's reward that the experts do not span. A belief is a mode with its curvature,
    good to serve, its intervals too narrow: what is shown is believed by the posterior.

    Returns:
        In reward units, and its standard error, in which is the uncertainty of the user's
        coefficients alone.
    """
    log_normaliser, under_soup = soup_moments(served, states)
    under_base = np.einsum("sv,svk->sk", np.exp(states.reference), states.tilts)
    slope = beta * (under_soup - under_base).mean(axis=0)
    kl = float(np.mean(under_soup @ served - log_normaliser))
    gain = float(slope @ believed.mean) - beta * kl
    return gain, float(np.sqrt(slope @ believed.covariance @ slope))


@dataclass(frozen=True, eq=False)
class Spectrum:
    """What is measured of the experts as a basis."""

    feature_means: ByExpert  # mean `beta * tilt_k` of calibration answers
    feature_scales: ByExpert  # standard deviation of the same
    effective_rank: dict[float, int]  # directions that carry 90, 99 and 99.9 % of the energy
    order: tuple[int, ...]  # experts in the order in which they add most to what the others span


def measure_spectrum(
    states: States, log_ratios: Float[np.ndarray, "answers experts"], *, beta: float
) -> Spectrum:
    """The offline phase, after training: scales, effective rank and order of the experts.

    States are sampled from the reference; log-ratios are those of calibration answers, nats.

    Raises:
        InvalidInputError: fewer than two answers, no states, or a number that is not finite.
    """
    means, scales = feature_scales(log_ratios, beta=beta)
    M = tilt_matrix(states.reference, np.moveaxis(states.tilts, -1, 0))  # [pairs, experts]
    order = select_experts(M, n_experts=M.shape[1])
    return Spectrum(means, scales, effective_rank(M), order)


def personal_soup(
    belief: Belief,
    *,
    states: States,
    method: SoupMethod,
    settings: SoupSettings | None = None,
    floor: tuple[int, float] | None = None,
) -> PersonalSoup:
    """The online phase, after the fit: the soup that serves a belief.

    The belief is over the experts' coefficients: one that was fitted with `basis.features` goes
    through `basis.unscaled`. States are recent or calibration ones. `floor` is index and
    coefficient of a safety expert that feedback cannot lower.

    Raises:
        InvalidInputError: the states are of other experts, or there are none.
        InvalidCoefficientsError: the floor names no expert, or the belief is not finite.
    """
    settings, n_experts = settings or SoupSettings(), states.tilts.shape[2]
    if len(belief.mean) != n_experts:
        raise InvalidInputError(
            f"The belief is over {len(belief.mean)} experts and the states have {n_experts}; use "
            "one library's."
        )
    require_coefficients(belief.mean, n_experts=n_experts)
    bounds = settings.least_coefficient, settings.most_coefficient
    allowed = mode_within(belief, *bounds)
    wanted = allowed if belief.n_observations else np.zeros(n_experts)
    trusted = trust_region(  # t lambda with mean KL <= budget, by bisection (S8)
        wanted,
        states,
        budget=settings.budget_after(belief.n_observations),
        floor=floor,
        largest_scale=min(settings.largest_scale, headroom(wanted, *bounds)),
    )
    spread = expert_spread(tilt_matrix(states.reference, np.moveaxis(states.tilts, -1, 0)))
    served = active_experts(
        trusted.coefficients, spread=spread, threshold=settings.active_threshold
    )
    if floor is not None:
        served[floor[0]] = trusted.coefficients[floor[0]]
    return PersonalSoup(served, belief, allowed, trusted.scale, trusted.kl, method)
