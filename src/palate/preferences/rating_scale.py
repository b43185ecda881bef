"""The scale that a user rates on, from the ratings alone.

A rating is read as `scale * (margin + noise)` plus a constant of its prompt. The user's scale is
the one at which differences between ratings of one prompt are as large as the prior expects, taken
as independent: any linear scale gives the same belief. It does not say how strongly a user feels.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from palate.core.types import Belief


def rating_scale(
    ratings: Sequence[float],
    *,
    gain_features: Float[np.ndarray, "ratings features"],
    groups: Sequence[str],
    prior: Belief,
    noise: float,
) -> float:
    """How many units of the user's scale one unit of the margin is; 1 where nothing tells.

    Args:
        ratings: `[ratings]`, oldest first.
        gain_features: `[ratings, features]`, of the rated answers, times the population's gain.
        groups: `[ratings]`, the prompt of each; only ratings of one prompt are compared.
        prior: The belief about a user without feedback.
        noise: Standard deviation of a rating, as a margin.
    """
    values = np.clip(ratings, -1e100, 1e100)  # so that squares are numbers
    shares: list[np.ndarray] = []  # of the squared differences that are expected
    for group in dict.fromkeys(groups):
        own = np.flatnonzero([one == group for one in groups])
        earlier = np.arange(1, len(own))
        # each rating less the mean of the earlier ones, as the learner compares them
        x, y = gain_features[own], values[own]
        x = x[1:] - np.cumsum(x, axis=0)[:-1] / earlier[:, None]
        y = y[1:] - np.cumsum(y)[:-1] / earlier
        expected = np.einsum("rf,fg,rg->r", x, prior.covariance, x) + (x @ prior.mean) ** 2
        shares.append(y**2 / (expected + noise**2 * (1.0 + 1.0 / earlier)))
    every = np.concatenate(shares)
    return float(np.sqrt(every.mean())) or 1.0 if len(every) else 1.0
