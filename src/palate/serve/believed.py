"""What is believed of users, as coefficients: learned from feedback, served within limits.

The belief is over the experts' coefficients themselves. An answer's features are
`beta * (log p_k(answer) - log p_0(answer))`, one for each expert; the basis gives the prior.

The stored belief serves: it is a mode with its curvature. What is shown to users is the posterior
of the same feedback, whose intervals hold the truth as often as they say.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import ndtri

from palate.core.types import Belief, Feedback
from palate.library.soup import Soups
from palate.preferences.belief import Learner
from palate.serve.settings import ServeSettings
from palate.serve.wire.palate import LearningState
from palate.serve.wire.users import BeliefOut, Estimate, SoupOut
from palate.soup.basis_file import SoupBasis
from palate.soup.personal import PredictedGain, predicted_gain

MAX_KEPT = 10_000  # beliefs of which what is shown is kept ready
Kept = TypeVar("Kept")
History = Callable[[], Sequence[Feedback]]
LEVEL = 0.95  # of every interval
SURE = float(ndtri(0.5 + LEVEL / 2))


@dataclass(eq=False)
class Believer:
    """Turns beliefs into soups, and into what users can read.

    Attributes:
        soups: The library's, which turn beliefs into coefficients.
        settings: Of the server.
    """

    soups: Soups
    settings: ServeSettings
    _shown: OrderedDict[bytes, "_Shown"] = field(default_factory=OrderedDict[bytes, "_Shown"])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def basis(self) -> SoupBasis:
        """Experts, anchors, prior."""
        return self.soups.basis

    def learner(self) -> Learner:
        """How beliefs follow from feedback."""
        return self.soups.learner(self.settings.learning)

    def start(self) -> Belief:
        """Of a user who has said nothing."""
        return self.learner().start()

    def state(self, belief: Belief | None) -> LearningState:
        """Whether answers use the belief."""
        if belief is None or belief.n_observations == 0:
            return "nothing"
        is_early = belief.n_observations < self.settings.apply_after
        return "observing" if self.settings.is_observing or is_early else "applied"

    def out(self, belief: Belief, history: History) -> BeliefOut:
        """The belief for users to read.

        Args:
            belief: As stored.
            history: Gives all feedback of the user, oldest first; called only where it is needed.
        """
        anchors, soup = self.basis.anchors, self.soups.soup(belief)
        shown = self._posterior(belief, history)
        posterior, gain = shown.posterior, shown.gain
        of_objectives = anchors.T @ posterior.covariance @ anchors
        budget = self.basis.settings
        is_early = belief.n_observations < budget.n_early
        return BeliefOut(
            learning=self.state(belief),
            n_feedback=belief.n_observations,
            experts=_estimates(self.basis.experts, posterior.mean, np.diag(posterior.covariance)),
            objectives=_estimates(
                self.basis.objectives, anchors.T @ posterior.mean, np.diag(of_objectives)
            ),
            preference=self.soups.preference(belief),
            soup=SoupOut(
                coefficients=self.soups.coefficients(belief),
                scale=soup.scale,
                kl=soup.kl,
                budget=budget.early_budget if is_early else budget.budget,
                gain=Estimate(name="gain", mean=gain.estimate, low=gain.low, high=gain.high),
            ),
        )

    def _posterior(self, belief: Belief, history: History) -> "_Shown":
        """What is shown of the feedback that the belief rests on."""
        key = _key(belief)
        with self._lock:
            found = _recent(self._shown, key)
        if found is not None:
            return found
        items = history()[: belief.n_observations]  # more may have come since the belief was read
        posterior = self.learner().posterior(items)
        coefficients = self.soups.soup(belief).coefficients  # as they are served
        gain = predicted_gain(
            coefficients,
            self.soups.states,
            believed=posterior,
            beta=self.basis.beta,
            confidence=LEVEL,
        )
        found = _Shown(posterior, gain)
        if len(items) == belief.n_observations:  # fewer: forgotten since
            with self._lock:
                _keep(self._shown, key, found)
        return found


@dataclass(frozen=True, eq=False)
class _Shown:
    """What is shown of a belief.

    Attributes:
        posterior: Of the same feedback, over coefficients.
        gain: Predicted under the posterior, of the soup that is served.
    """

    posterior: Belief
    gain: PredictedGain


def _key(belief: Belief) -> bytes:
    """Of everything that follows from the belief."""
    count = belief.n_observations.to_bytes(8, "little")
    return belief.mean.tobytes() + belief.covariance.tobytes() + count


def _recent(kept: "OrderedDict[bytes, Kept]", key: bytes) -> "Kept | None":
    """What is kept under the key, now the last to be thrown away."""
    if key not in kept:
        return None
    kept.move_to_end(key)
    return kept[key]


def _keep(kept: "OrderedDict[bytes, Kept]", key: bytes, value: "Kept") -> None:
    """Keep the value, and no more than `MAX_KEPT` of them."""
    kept[key] = value
    while len(kept) > MAX_KEPT:
        kept.popitem(last=False)


def _estimates(
    names: tuple[str, ...], means: Float[ndarray, " names"], variances: Float[ndarray, " names"]
) -> list[Estimate]:
    halves = SURE * np.sqrt(np.maximum(variances, 0.0))
    return [
        Estimate(name=name, mean=float(mean), low=float(mean - half), high=float(mean + half))
        for name, mean, half in zip(names, means, halves, strict=True)
    ]
