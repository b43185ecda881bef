"""A user's soup as a record: what it rests on, and its predicted gain over the base model.

Source: ours, from the advantages (S1) of Spectral Souping, arXiv 2605.20408.
"""

from dataclasses import dataclass

import numpy as np

from palate.core.plan import Plan
from palate.core.types import Belief
from palate.soup.plans import SoupMethod, soup_plan
from palate.soup.states import ByExpert, States, soup_moments


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
