"""What is believed of users: which coefficients serve it, and what users are shown of it.

The belief is over the experts' coefficients. An answer's features are
`beta * (log p_k(answer) - log p_0(answer))`, one for each expert; the basis gives the prior.

The stored belief serves: it is a mode with its curvature. Users are shown the posterior of the
same feedback, whose intervals cover the truth as often as they say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

from palate.core.types import Belief, Feedback
from palate.library.soup import Soups
from palate.preferences.belief import Learner
from palate.serve.settings import ServeSettings
from palate.serve.wire.palate import LearningState
from palate.serve.wire.users import BeliefOut, Estimate, SoupOut
from palate.soup.spectral import predicted_gain

LEVEL = 0.95  # of every interval
SETTLED = 0.2  # unknown share from which on more questions would change little
HALF_WIDTH = float(ndtri(0.5 + LEVEL / 2))  # standard deviations


@dataclass(eq=False)
class Believer:
    """Reads beliefs for answers and for users."""

    soups: Soups
    settings: ServeSettings

    @cached_property
    def learner(self) -> Learner:
        """How beliefs follow from feedback."""
        return self.soups.learner(self.settings.learning)

    @property
    def apply_after(self) -> int | None:
        """Items of feedback from which on answers use a belief; `None` is never."""
        return None if self.settings.is_observing else self.settings.apply_after

    def learning(self, belief: Belief | None) -> LearningState:
        """Whether answers use the belief."""
        if belief is None or belief.n_observations == 0:
            return "nothing"
        is_applied = self.apply_after is not None and belief.n_observations >= self.apply_after
        return "applied" if is_applied else "observing"

    def out(
        self, belief: Belief | None, history: Sequence[Feedback], *, learner: Learner
    ) -> BeliefOut:
        """The user's belief for users to read; more feedback may have come since it was stored."""
        belief = learner.start if belief is None else belief
        basis, soup = self.soups.basis, self.soups.soup(belief)
        anchors, posterior = basis.anchors, learner.posterior(history[: belief.n_observations])
        served, states = soup.coefficients, self.soups.states
        gain, error = predicted_gain(served, states, believed=posterior, beta=basis.beta)
        of_objectives = anchors.T @ posterior.covariance @ anchors
        known_of_nobody = float(basis.feature_scales**2 @ np.diag(self.learner.prior.covariance))
        unknown = float(basis.feature_scales**2 @ np.diag(posterior.covariance)) / known_of_nobody
        return BeliefOut(
            learning=self.learning(belief),
            n_feedback=belief.n_observations,
            experts=_estimates(basis.experts, posterior.mean, np.diag(posterior.covariance)),
            objectives=_estimates(
                basis.objectives, anchors.T @ posterior.mean, np.diag(of_objectives)
            ),
            preference=self.soups.preference(belief),
            soup=SoupOut(
                coefficients=self.soups.coefficients(belief),
                scale=soup.scale,
                kl=soup.kl,
                budget=basis.settings.budget_after(belief.n_observations),
                gain=_estimates(["gain"], np.array([gain]), np.array([error**2]))[0],
            ),
            unknown_share=unknown,
            is_settled=unknown <= SETTLED,
        )


def _estimates(
    names: Sequence[str], means: Float[np.ndarray, " names"], variances: Float[np.ndarray, " names"]
) -> list[Estimate]:
    halves = HALF_WIDTH * np.sqrt(np.maximum(variances, 0.0))
    return [
        Estimate(name=name, mean=float(mean), low=float(mean - half), high=float(mean + half))
        for name, mean, half in zip(names, means, halves, strict=True)
    ]
