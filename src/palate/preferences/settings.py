"""How beliefs are learned from feedback."""

from typing import Literal

from pydantic import Field

from palate.core.settings import Settings


class LearningSettings(Settings):
    """Settings of a `Learner`; one home for each.

    Attributes:
        gain: The population's: how sharply labels follow margins.
        is_gain_fitted: Find each user's own gain at every refit.
        fit_gain_from: Comparisons a user needs before that.
        drift: `none`; `steady` forgets by `forgetting` at each item; `adaptive` finds changes.
        forgetting: Factor of steady forgetting.
        hazard: Of adaptive forgetting: probability of a change between two comparisons.
        refit_every: Without adaptive drift, refit from the log at each of so many first items and
            then at every such number of items; in between, one-comparison updates.
        rating_noise: Standard deviation of a rating, in units of the margin.
    """

    gain: float = Field(default=1.0, gt=0)
    is_gain_fitted: bool = True
    fit_gain_from: int = Field(default=10, ge=1)
    drift: Literal["none", "steady", "adaptive"] = "none"
    forgetting: float = Field(default=0.98, gt=0, le=1)
    hazard: float = Field(default=0.03, gt=0, lt=1)
    refit_every: int = Field(default=25, ge=1)
    rating_noise: float = Field(default=1.0, gt=0)
