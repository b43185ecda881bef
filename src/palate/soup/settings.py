"""Settings of soups that are learned from feedback."""

import numpy as np
from jaxtyping import Float
from pydantic import Field

from palate.core.settings import Settings
from palate.soup.states import ByExpert


class SoupSettings(Settings):
    """How far a user's soup may go, and which experts take part."""

    budget: float = Field(default=0.2, gt=0)  # largest mean KL to the base model, nats per token
    early_budget: float = Field(default=0.1, gt=0)  # the same below `n_early` feedback items
    # most that believed coefficients are enlarged to spend the budget; 1 only shrinks
    largest_scale: float = Field(default=1.0, gt=0)
    # below zero an expert is subtracted; `None` does not bound
    least_coefficient: float | None = Field(default=None, le=0)
    # 1 is an expert as it was trained; `None` does not bound
    most_coefficient: float | None = Field(default=None, gt=0)
    n_early: int = Field(default=10, ge=0)  # feedback items below which `early_budget` holds
    active_threshold: float = Field(default=0.02, ge=0)  # least active `|coefficient| * sd of tilt`
    confidence: float = Field(default=0.95, gt=0, lt=1)  # of intervals and of the predicted gain

    def budget_after(self, n_observations: int) -> float:
        """The budget that holds after so many feedback items."""
        return self.early_budget if n_observations < self.n_early else self.budget


def settings_for(
    anchors: Float[np.ndarray, "experts objectives"], expert_kls: ByExpert, *, has_population: bool
) -> dict[str, float]:
    """The default trust region of `soup.json`.

    Where many users' feedback gave the prior, size and sign of coefficients are learned, and a
    soup may go as far from the base as an expert does. Without it, experts of one objective each
    are building blocks: whoever wants three objectives gets three experts in full, which cost about
    the sum of their KL, and none is subtracted, for which nothing was trained and texts break
    within any budget (docs/log.md). Half as far while there is little feedback.
    """
    is_single = bool(np.all((anchors > 0).sum(axis=1) == 1) and np.all(anchors >= 0))
    is_bounded = is_single and not has_population
    budget = float(expert_kls.sum() if is_bounded else expert_kls.mean())
    bounds = {"least_coefficient": 0.0, "most_coefficient": 1.0} if is_bounded else {}
    return {"budget": budget, "early_budget": budget / 2, "largest_scale": 2.0, **bounds}
