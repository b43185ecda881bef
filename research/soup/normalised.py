"""Stage 2: coefficients fitted to the policy itself, with its normalisers.

Stage 1 predicts a comparison from the tilts alone, as if the soup needed no normalising. Stage 2
uses the soup's own log-ratio

    G(y) = sum_t [ tilt_lambda(s_t, a_t) - log Z_lambda(s_t) ],
    dG / d lambda_k = sum_t [ tilt_k(s_t, a_t) - E_{soup(. | s_t)} tilt_k(s_t, .) ],

and margins `scale * (G(first) - G(second))`, `scale` the product of gain and beta. It removes the
ceiling that reward space puts on stage 1, from about a hundred comparisons on; below that it can
hurt. The loss is not convex: it starts from stage 1, and is used only if comparisons that were held
out become no less likely (`fit_gated`).

Source: ours, an extension of Spectral Souping, arXiv 2605.20408 (methods 4.2, S8).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.soup.states import ByExpert, Coefficients, States, require_coefficients, soup_moments

MAX_STEPS = 500
N_FOLDS = 5  # one held-out part was not enough to judge by (docs/soup.md)


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Pairs of answers with their labels, and the states they passed through."""

    # summed tilts of the first answer minus the second's, not multiplied by beta
    features: Float[ndarray, "comparisons experts"]
    # `[comparisons, states]`, how often the first passed a state less how often the second did
    visits: csr_array
    labels: Float[ndarray, " comparisons"]  # 1 first preferred, 0 second, 0.5 a tie
    states: States  # the states that `visits` counts, each once

    def __post_init__(self) -> None:
        """Refuse shapes that disagree and labels out of range."""
        wanted = (len(self.labels), len(self.states.reference))
        n_experts = self.states.tilts.shape[2]
        shape = cast(tuple[int, int], self.visits.shape)  # scipy leaves it untyped
        if shape != wanted or self.features.shape != (len(self.labels), n_experts):
            raise InvalidInputError(
                f"Features {self.features.shape} and visits {shape} do not fit "
                f"{wanted[0]} labels, {wanted[1]} states and {n_experts} experts."
            )
        is_good = (self.labels >= 0) & (self.labels <= 1)
        if not np.all(is_good) or not np.all(np.isfinite(self.features)):
            raise InvalidInputError("A label lies outside [0, 1], or a feature is not finite.")

    def part(self, index: Int[ndarray, " part"]) -> "Comparisons":
        """Only the comparisons at these places."""
        return Comparisons(
            self.features[index], self.visits[index], self.labels[index], self.states
        )


@dataclass(frozen=True, eq=False)
class GatedFit:
    """Both stages, and how likely each makes comparisons that it was not fitted to."""

    first: ByExpert  # coefficients of stage 1
    second: ByExpert  # coefficients of stage 2
    first_log_likelihood: float  # mean over held-out labels under stage 1, with normalisers, nats
    second_log_likelihood: float  # the same under stage 2

    @property
    def is_second(self) -> bool:
        """Whether held-out labels are no less likely under stage 2."""
        return self.second_log_likelihood >= self.first_log_likelihood

    @property
    def coefficients(self) -> ByExpert:
        """Those of the stage to serve."""
        return self.second if self.is_second else self.first


def fit_gated(
    comparisons: Comparisons,
    *,
    first: Callable[[Int[ndarray, " used"]], ByExpert],
    prior: Belief,
    scale: float,
) -> GatedFit:
    """Stage 2 on all comparisons, judged by five folds that hold out every comparison once.

    `first` is stage 1 on the comparisons at given places; `scale` is gain times beta.

    Raises:
        InvalidInputError: there are fewer than two comparisons, so none can be held out.
    """
    index = np.arange(len(comparisons.labels))
    if len(index) < 2:
        raise InvalidInputError(
            f"{len(index)} comparisons leave none to judge stage 2 by; keep stage 1 instead."
        )

    def both(used: Int[ndarray, " used"]) -> tuple[ndarray, ndarray]:
        start = first(used)
        return start, fit_normalised(comparisons.part(used), start=start, prior=prior, scale=scale)

    totals = np.zeros(2)
    for fold in range(min(N_FOLDS, len(index))):
        is_out = index % N_FOLDS == fold
        held_out = comparisons.part(index[is_out])
        stages = both(index[~is_out])
        totals += [is_out.sum() * log_likelihood(c, held_out, scale=scale) for c in stages]
    before, after = (totals / len(index)).tolist()
    return GatedFit(*both(index), before, after)


def fit_normalised(
    comparisons: Comparisons, *, start: Coefficients, prior: Belief, scale: float
) -> ByExpert:
    """Coefficients that minimise `normalised_loss`, from a warm start.

    A local minimum: the loss never ends above where it started. Without comparisons the prior mean
    comes back. `scale` is gain times beta.

    Raises:
        InvalidCoefficientsError: lengths disagree.
    """
    first = require_coefficients(start, n_experts=comparisons.features.shape[1])

    def loss(coefficients: ByExpert) -> tuple[float, ndarray]:
        return normalised_loss(coefficients, comparisons, prior=prior, scale=scale)

    best = minimize(
        loss, first, jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS, "ftol": 1e-12}
    )
    return np.asarray(best.x) if best.fun <= loss(first)[0] else first


def normalised_loss(
    coefficients: ByExpert, comparisons: Comparisons, *, prior: Belief, scale: float
) -> tuple[float, ByExpert]:
    """Negative log posterior in nats, and its gradient; arguments as in `fit_normalised`."""
    values, slopes = margins(coefficients, comparisons, scale=scale)
    pull = np.linalg.solve(prior.covariance, coefficients - prior.mean)
    misses = float(_misses(values, comparisons.labels).sum())
    loss = misses + 0.5 * float((coefficients - prior.mean) @ pull)
    return loss, slopes.T @ (expit(values) - comparisons.labels) + pull


def margins(
    coefficients: Coefficients, comparisons: Comparisons, *, scale: float
) -> tuple[Float[ndarray, " comparisons"], Float[ndarray, "comparisons experts"]]:
    """Margins and their derivatives by the coefficients.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per expert.
    """
    values = require_coefficients(coefficients, n_experts=comparisons.features.shape[1])
    log_normaliser, means = soup_moments(values, comparisons.states)
    ratios = comparisons.features @ values - comparisons.visits @ log_normaliser
    return scale * ratios, scale * (comparisons.features - comparisons.visits @ means)


def log_likelihood(coefficients: Coefficients, comparisons: Comparisons, *, scale: float) -> float:
    """Mean log-probability of the labels, in nats; the higher the better."""
    values, _ = margins(coefficients, comparisons, scale=scale)
    return -float(np.mean(_misses(values, comparisons.labels)))


def _misses(
    margins: Float[ndarray, " comparisons"], labels: Float[ndarray, " comparisons"]
) -> Float[ndarray, " comparisons"]:
    return labels * np.logaddexp(0, -margins) + (1 - labels) * np.logaddexp(0, margins)
