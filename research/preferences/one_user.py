"""`fit_batch` for one user, as studies of single users call it."""

from dataclasses import fields

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.types import Belief
from palate.preferences.bradley_terry import Fit, fit_batch
from palate.preferences.comparisons import RootedPrior


def fit(
    features: Float[ndarray, "comparisons features"],
    labels: Float[ndarray, " comparisons"],
    *,
    prior: Belief | RootedPrior,
    gain: float = 1.0,
    discounts: Float[ndarray, " comparisons"] | None = None,
) -> Fit:
    """Exact posterior mode of one user's comparisons, with Laplace covariance.

    Arguments, errors and source are those of `palate.preferences.bradley_terry.fit_batch`, without
    the axis of users.
    """
    one, own = np.asarray(features)[None], np.asarray(labels)[None]
    counted = None if discounts is None else np.asarray(discounts)[None]
    batch = fit_batch(one, own, prior=prior, gain=gain, discounts=counted)
    return Fit(*(getattr(batch, part.name)[0] for part in fields(Fit)))
