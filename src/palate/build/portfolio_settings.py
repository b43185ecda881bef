"""Settings of a portfolio in a run file: which policies to look for, until when, and who judges."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from palate.core.errors import InvalidInputError
from palate.core.settings import Settings
from palate.portfolio.grid import ratio_grid_size

WIDEST = 1000  # thousandths: a tolerance of one; delta stays below it, as two objectives ask
OracleKind = Literal["trained", "decoding", "soup"]


class PortfolioSettings(Settings):
    """A certified portfolio, and the experts that it asks for."""

    # `adaptive`: where the certificate is weakest, until the tolerance or the budget is met;
    # `grid`: PALM as published, one policy per preference of a ratio grid
    search: Literal["adaptive", "grid"] = "adaptive"
    oracle: OracleKind = "trained"  # what makes the policies; see `palate.build.oracles`
    # in reward units: the search stops when no loss is larger, and without a `size` as few members
    # are kept as lose no more by the estimates
    tolerance: float = Field(default=0.02, gt=0)
    max_policies: int = Field(default=14, ge=1)  # budget, the objectives' own policies among them
    # of the grid; `None` takes the tightest in `max_policies`, to 3 digits, one number for both
    epsilon: float | None = Field(default=None, gt=0)  # multiplicative
    delta: float | None = Field(default=None, gt=0)  # additive; below the number of objectives - 1
    size: int | None = Field(default=None, ge=1)  # keep exactly so many members
    prompts: str | tuple[str, ...] | None = None  # file or list to measure on; `None`: the run's
    n_prompts: int = Field(default=600, ge=0)  # at random; 0: all. One half selects, one certifies
    n_answers: int = Field(default=1, ge=1)  # answers of every policy to every prompt
    # price of a nat of KL in what users value, in reward units; `None` is `training.beta`. Policies
    # that were not optimised against this price, such as soups, may be worth more at a lower one
    beta: float | None = Field(default=None, gt=0)
    confidence: float = Field(default=0.95, gt=0, lt=1)  # confidence of the certificate
    # how near to optimal every policy is for its own preference, which certifies against all
    # policies there could be: a number is assumed; `estimate` takes an upper bound from the
    # policies' own answers, which needs an `n_answers` of two or more and compares the policies
    # that were made otherwise; `None` compares those that were made
    slack: Annotated[float, Field(ge=0)] | Literal["estimate"] | None = "estimate"

    @model_validator(mode="after")
    def _is_affordable(self) -> "PortfolioSettings":
        if self.size is not None and self.size > self.max_policies:
            raise ValueError(
                f"size={self.size} members cannot come from max_policies={self.max_policies}"
            )
        return self

    def grid_tolerances(self, n_objectives: int) -> tuple[float, float]:
        """The grid's epsilon and delta; InvalidInputError where `max_policies` affords none."""
        if self.epsilon is not None and self.delta is not None:
            return self.epsilon, self.delta
        size = 0
        for tolerance in range(1, WIDEST + 1):  # thousandths
            epsilon = self.epsilon or tolerance / 1000
            delta = self.delta or min(tolerance, WIDEST - 1) / 1000
            size = ratio_grid_size(n_objectives=n_objectives, epsilon=epsilon, delta=delta)
            if size <= self.max_policies:
                return epsilon, delta
        raise InvalidInputError(
            f"Even with tolerances of 1, PALM's grid for {n_objectives} objectives has {size} "
            f"preferences, more than portfolio.max_policies={self.max_policies}; allow more, or "
            "set portfolio.search=adaptive."
        )
