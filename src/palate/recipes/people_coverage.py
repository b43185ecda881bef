"""How often regions of coefficients hold a simulated person's coefficients.

People are drawn from the prior (standard normal), differences of features are normal, and answers
follow Bradley-Terry: the model that beliefs assume. Both kinds of region are counted: the closest
normal distribution's, which is what is shown to people, and Laplace's, which is what is stored.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit
from scipy.stats import chi2

from palate.core.errors import InvalidInputError
from palate.core.seeds import generator_for
from palate.core.types import Belief
from palate.metrics.intervals import wilson_interval
from palate.people.bradley_terry import fit_batch
from palate.people.gaussian_posterior import average_fits

LEVEL = 0.9  # of the regions
FEATURE_DEVIATION = 0.7  # about two of three answers to a random pair of 4 coefficients are right


def study_coverage(
    *, n_coefficients: int, comparisons: Sequence[int], n_people: int, seed: int
) -> dict[str, Any]:
    """Shares of people inside their 90 % region, after each number of comparisons.

    Args:
        n_coefficients: Length of a person's vector.
        comparisons: Numbers of comparisons, each with people of its own.
        n_people: At each of them.
        seed: Of everything.

    Raises:
        InvalidInputError: no comparisons are asked for, or a number is below one.
    """
    if not comparisons or min(comparisons) < 1:
        raise InvalidInputError(
            f"The numbers of comparisons {list(comparisons)} are not all at least 1; give some."
        )
    prior = Belief(np.zeros(n_coefficients), np.eye(n_coefficients))
    rows: dict[str, Any] = {}
    for n in comparisons:
        generator = generator_for(seed, "coverage", n_coefficients, n)
        people = generator.normal(size=(n_people, n_coefficients))
        features = FEATURE_DEVIATION * generator.normal(size=(n_people, n, n_coefficients))
        chance = expit(np.einsum("pnf,pf->pn", features, people))
        labels = (generator.random(chance.shape) < chance).astype(np.float64)
        mode = fit_batch(features, labels, prior=prior)
        average = average_fits(features, labels, prior=prior)
        rows[f"after {n}"] = {
            "closest normal": _share(people - average.mean, average.covariance),
            "laplace": _share(people - mode.mean, mode.covariance),
        }
    return {"coefficients": n_coefficients, "people": n_people, "level": LEVEL, **rows}


def _share(
    away: Float[ndarray, "people features"], covariance: Float[ndarray, "people f f"]
) -> dict[str, float]:
    solved = np.linalg.solve(covariance, away[..., None])[..., 0]
    inside = np.einsum("pf,pf->p", away, solved) <= chi2.ppf(LEVEL, away.shape[1])
    low, high = wilson_interval(float(inside.sum()), len(inside))
    return {"covered": float(inside.mean()), "low": low, "high": high}
