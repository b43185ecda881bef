"""What is believed of people, as coefficients: learned from feedback, served within limits.

The belief is over the experts' coefficients themselves. An answer's features are
`beta * (log p_k(answer) - log p_0(answer))`, one for each expert; the basis gives the prior.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import ndtri

from palate.core.types import Belief
from palate.people.belief import Learner
from palate.serve.floor import Floor
from palate.serve.settings import ServeSettings
from palate.serve.wire.palate import LearningState
from palate.serve.wire.people import BeliefOut, Estimate, SoupOut
from palate.soup.basis_file import SoupBasis
from palate.soup.normalised import States
from palate.soup.personal import PersonalSoup, personal_soup

MAX_KEPT = 10_000  # soups of people that are kept ready
SURE = float(ndtri(0.975))


@dataclass(eq=False)
class Believer:
    """Turns beliefs into soups, and into what people can read.

    Attributes:
        basis: Experts, anchors, prior.
        states: Where the trust region is measured.
        settings: Of the server.
        floor: That every answer keeps.
    """

    basis: SoupBasis
    states: States
    settings: ServeSettings
    floor: Floor | None = None
    _kept: OrderedDict[bytes, PersonalSoup] = field(
        default_factory=OrderedDict[bytes, PersonalSoup]
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def learner(self) -> Learner:
        """How beliefs follow from feedback."""
        scales = self.basis.feature_scales
        prior = self.basis.prior
        raw = Belief(prior.mean / scales, prior.covariance / np.outer(scales, scales))
        settings = self.settings.learning
        if prior.n_observations:  # a population's own gain
            settings = settings.model_copy(update={"gain": prior.gain})
        return Learner(raw, settings=settings)

    def start(self) -> Belief:
        """Of a person who has said nothing."""
        return self.learner().start()

    def state(self, belief: Belief | None) -> LearningState:
        """Whether answers use the belief."""
        if belief is None or belief.n_observations == 0:
            return "nothing"
        is_early = belief.n_observations < self.settings.apply_after
        return "observing" if self.settings.is_observing or is_early else "applied"

    def soup(self, belief: Belief) -> PersonalSoup:
        """The soup that serves the belief, within the trust region and above the floor."""
        key = belief.mean.tobytes() + belief.covariance.tobytes()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = self._soup(belief)
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return found

    def coefficients(self, belief: Belief) -> dict[str, float]:
        """The soup's coefficients by expert."""
        values = self.soup(belief).coefficients.tolist()
        return dict(zip(self.basis.experts, values, strict=True))

    def preference(self, belief: Belief) -> dict[str, float] | None:
        """The preference that the belief comes to; `None` where nothing is asked for."""
        asked = np.maximum(self.basis.anchors.T @ self.soup(belief).allowed, 0.0)
        if belief.n_observations == 0 or asked.sum() <= 1e-9:
            return None
        return dict(zip(self.basis.objectives, (asked / asked.sum()).tolist(), strict=True))

    def out(self, belief: Belief) -> BeliefOut:
        """The belief for people to read."""
        anchors, soup = self.basis.anchors, self.soup(belief)
        of_objectives = anchors.T @ belief.covariance @ anchors
        budget = self.basis.settings
        is_early = belief.n_observations < budget.n_early
        return BeliefOut(
            learning=self.state(belief),
            n_feedback=belief.n_observations,
            experts=_estimates(self.basis.experts, belief.mean, np.diag(belief.covariance)),
            objectives=_estimates(
                self.basis.objectives, anchors.T @ belief.mean, np.diag(of_objectives)
            ),
            preference=self.preference(belief),
            soup=SoupOut(
                coefficients=self.coefficients(belief),
                scale=soup.scale,
                kl=soup.kl,
                budget=budget.early_budget if is_early else budget.budget,
                gain=Estimate(
                    name="gain",
                    mean=soup.gain.estimate,
                    low=soup.gain.low,
                    high=soup.gain.high,
                ),
            ),
        )

    def _soup(self, belief: Belief) -> PersonalSoup:
        scales = self.basis.feature_scales
        scaled = Belief(
            belief.mean * scales,
            belief.covariance * np.outer(scales, scales),
            belief.n_observations,
            belief.gain,
        )
        floor = None if self.floor is None else (self.floor.expert, self.floor.coefficient)
        return personal_soup(
            scaled,
            basis=self.basis,
            states=self.states,
            way="soup",
            settings=self.basis.settings,
            floor=floor,
        )


def _estimates(
    names: tuple[str, ...], means: Float[ndarray, " names"], variances: Float[ndarray, " names"]
) -> list[Estimate]:
    halves = SURE * np.sqrt(np.maximum(variances, 0.0))
    return [
        Estimate(name=name, mean=float(mean), low=float(mean - half), high=float(mean + half))
        for name, mean, half in zip(names, means, halves, strict=True)
    ]
