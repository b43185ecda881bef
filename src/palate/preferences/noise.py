"""How noisy a user is: the gain with which labels follow margins.

The labels of a careful user follow large margins almost always, those of a random voter not at
all. The gain is fitted by the evidence of the user's labels over a grid, under a log-normal prior
around the population's gain, so that a user with few labels has nearly the population's.
Contradictions lower the gain; they are never an error.

Answers are served with one gain (`fit_gain`), intervals average over all gains
(`average_over_gain`): labels determine the product of gain and vector better than either, so an
interval that takes the fitted gain for the true one is too narrow, the more so the more labels.

Source: Spectral Souping, arXiv 2605.20408, log-evidence of a fit; MacKay 1992, "Bayesian
interpolation".
"""

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from scipy.special import softmax

from palate.core.types import Belief
from palate.preferences.bradley_terry import fit_batch
from palate.preferences.gaussian_posterior import average_fits

STEPS = np.arange(-12, 5) / 2.0  # grid of the gain, in powers of two around the population's
LOG_SD = np.log(3.0)  # users' gains spread by about this factor (log-normal prior)
LOG_RATIOS = np.log(2.0) * STEPS
N_FINE = 512  # places at which the grid's evidence is interpolated
N_NODES = 11  # gains that are averaged over
REACH = 3.0  # how far they reach to each side, in standard deviations of the log gain


def fit_gain(
    features: Float[np.ndarray, "comparisons features"],
    labels: Float[np.ndarray, " comparisons"],
    *,
    prior: Belief,
    gain: float = 1.0,
    discounts: Float[np.ndarray, " comparisons"] | None = None,
) -> float:
    """One user's gain: geometric mean of the posterior over the grid.

    Comparisons as in `bradley_terry.fit_batch`; the prior's scale gives the gain its meaning, and
    `gain` is the population's.

    Returns:
        Between 1/64 and 4 times the population's; exactly the population's without labels.
    """
    if np.size(labels) == 0:
        return gain
    share = softmax(_log_posterior(features, labels, prior=prior, gain=gain, discounts=discounts))
    share_of_prior = softmax(-0.5 * (LOG_RATIOS / LOG_SD) ** 2)
    # the grid reaches further down than up; without labels the mean must be the population's gain
    return float(gain * np.exp((share - share_of_prior) @ LOG_RATIOS))


def average_over_gain(
    features: Float[np.ndarray, "comparisons features"],
    labels: Float[np.ndarray, " comparisons"],
    *,
    prior: Belief,
    gain: float = 1.0,
    discounts: Float[np.ndarray, " comparisons"] | None = None,
) -> Belief:
    """Posterior mean and covariance of one user whose gain is not known either.

    The posterior is a mixture over gains of the closest normals (`gaussian_posterior`), each
    counted by its bound on the evidence and by the prior of gains; mean and covariance are the
    mixture's. The gains are equally spaced in the logarithm, where the grid's evidence puts them.
    Takes what `fit_gain` takes; labels count on from the prior's.

    Returns:
        The prior without labels. Its gain is the geometric mean.

    Raises:
        InvalidInputError: a value is not finite or out of range, or shapes disagree.
    """
    nodes = np.zeros(1)
    if np.size(labels):
        nodes = _nodes(
            _log_posterior(features, labels, prior=prior, gain=gain, discounts=discounts)
        )
    copies = (len(nodes), 1, 1)
    means, covariances, bounds, is_converged = average_fits(
        np.tile(np.asarray(features, dtype=np.float64), copies),
        np.tile(np.asarray(labels, dtype=np.float64), copies[:2]),
        prior=prior,
        gain=gain * np.exp(nodes),
        discounts=None if discounts is None else np.tile(discounts, copies[:2]),
    )
    share = softmax(bounds - 0.5 * (nodes / LOG_SD) ** 2)
    mean = share @ means
    away = means - mean
    within = np.einsum("g,gij->ij", share, covariances)
    between = (away.T * share) @ away
    mean_gain = float(gain * np.exp(share @ nodes))
    n_observations = prior.n_observations + int(np.size(labels))
    return Belief(mean, within + between, n_observations, mean_gain, bool(is_converged.all()))


def _log_posterior(
    features: Float[np.ndarray, "comparisons features"],
    labels: Float[np.ndarray, " comparisons"],
    *,
    prior: Belief,
    gain: float,
    discounts: Float[np.ndarray, " comparisons"] | None,
) -> Float[np.ndarray, " gains"]:
    """Log posterior of each gain of the grid, up to a constant, nats; evidence by Laplace."""
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    counted = np.ones(len(y)) if discounts is None else np.asarray(discounts, dtype=np.float64)
    n_gains = len(LOG_RATIOS)
    fits = fit_batch(
        np.broadcast_to(x, (n_gains, *x.shape)),
        np.broadcast_to(y, (n_gains, *y.shape)),
        prior=prior,
        gain=gain * np.exp(LOG_RATIOS),
        discounts=np.broadcast_to(counted, (n_gains, *counted.shape)),
        tolerance=1e-6,
    )
    return fits.log_evidence - 0.5 * (LOG_RATIOS / LOG_SD) ** 2


def _nodes(log_posterior: Float[np.ndarray, " gains"]) -> Float[np.ndarray, " nodes"]:
    """Log ratios to the population's gain, equally spaced over where the posterior has its mass."""
    fine = np.linspace(LOG_RATIOS[0], LOG_RATIOS[-1], N_FINE)
    share = softmax(PchipInterpolator(LOG_RATIOS, log_posterior)(fine))
    mean = float(share @ fine)
    reach = REACH * float(np.sqrt(share @ (fine - mean) ** 2))
    low, high = max(LOG_RATIOS[0], mean - reach), min(LOG_RATIOS[-1], mean + reach)
    return np.linspace(low, high, N_NODES)
