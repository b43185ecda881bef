"""Which pair of answers to ask a user about next.

Candidates are pairs of answers, given by their feature differences. `select_informative` takes the
pair whose answer most shrinks the belief (D-optimal, one step ahead); `verdict_information` says
how much the verdict on a pair tells.

Source: Chaloner & Verdinelli 1995, "Bayesian experimental design: a review". Active questions are
future work in Spectral Souping, arXiv 2605.20408; these are ours.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import entr, expit, ndtri

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.newton import moderate

N_QUANTILES = 2048  # of the believed margin, to average a verdict's entropy over


def information_gains(
    belief: Belief, pairs: Float[np.ndarray, "pairs features"], *, gain: float = 1.0
) -> Float[np.ndarray, " pairs"]:
    """Expected fall of the entropy of the Laplace belief by each answer, nats (D-optimal).

    `log(1 + h s^2) / 2` with `s^2` the variance of the margin and `h` the expected curvature. A
    score to choose by: where the belief is wide it exceeds `log 2`, which no verdict between two
    can tell; `verdict_information` says what it tells.
    """
    scaled = gain * np.asarray(pairs, dtype=np.float64)
    variance = np.einsum("qf,fg,qg->q", scaled, belief.covariance, scaled)
    win = moderate(scaled @ belief.mean, variance)
    return 0.5 * np.log1p(win * (1.0 - win) * variance)


def verdict_information(
    belief: Belief, pair: Float[np.ndarray, " features"], *, gain: float = 1.0
) -> float:
    """What the verdict on a pair is expected to tell of the user, nats, at most `log 2`.

    The mutual information of verdict and margin: the entropy of the verdict less the entropy it
    would have if the margin were known, over equally probable quantiles of the believed margin.

    Source:
        Houlsby et al. 2011, "Bayesian Active Learning for Classification and Preference Learning".
    """
    scaled = gain * np.asarray(pair, dtype=np.float64)
    spread = float(np.sqrt(max(scaled @ belief.covariance @ scaled, 0.0)))
    quantiles = ndtri((np.arange(N_QUANTILES) + 0.5) / N_QUANTILES)
    win = expit(float(scaled @ belief.mean) + spread * quantiles)
    known = float((entr(win) + entr(1.0 - win)).mean())
    return max(float(entr(win.mean()) + entr(1.0 - win.mean())) - known, 0.0)


def select_informative(
    belief: Belief, pairs: Float[np.ndarray, "pairs features"], *, gain: float = 1.0
) -> int:
    """Index of the pair with the largest information gain.

    Raises:
        InvalidInputError: there are no pairs.
    """
    if len(pairs) == 0:
        raise InvalidInputError("There is no pair to ask about; give at least one candidate.")
    return int(information_gains(belief, pairs, gain=gain).argmax())
