"""How beliefs are learned from feedback."""

from typing import Literal

from pydantic import Field

from palate.core.settings import Settings


class LearningSettings(Settings):
    """Settings of a `Learner`; one home for each."""

    gain: float = Field(default=1.0, ge=1e-3, le=1e3)  # how sharply the population's labels follow
    is_gain_fitted: bool = True  # find each user's own gain at every refit
    fit_gain_from: int = Field(default=10, ge=1)  # comparisons a user needs before that
    # `none`; `steady` forgets by `forgetting` at each item; `adaptive` finds changes
    drift: Literal["none", "steady", "adaptive"] = "none"
    forgetting: float = Field(default=0.98, ge=0.01, le=1)  # factor of steady forgetting
    hazard: float = Field(default=0.03, ge=1e-9, lt=1)  # probability of a change at a comparison
    # without adaptive drift, refit from the log at each of so many first items and then at every
    # such number of items; in between, one-comparison updates
    refit_every: int = Field(default=25, ge=1)
    rating_noise: float = Field(default=1.0, ge=1e-3, le=1e3)  # standard deviation, as margins
    is_rating_scaled: bool = True  # ratings are in units of the user's own scale, not of margins
    weak_weight: float = Field(default=0.2, gt=0, le=1)  # of a copy or a regeneration, as thumbs
