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
    # how a policy for a preference is made; see `palate.build.oracles`
    oracle: OracleKind = "trained"
    # in reward units: the search stops when no loss is larger, and without a `size` as few members
    # are kept as lose no more by the estimates
    tolerance: float = Field(default=0.02, gt=0)
    max_policies: int = Field(default=14, ge=1)  # budget, the objectives' own policies among them
    # multiplicative tolerance of the grid; `None` takes the tightest, to three digits, that
    # `max_policies` affords, the same number as for a `delta` of `None`
    epsilon: float | None = Field(default=None, gt=0)
    # additive tolerance of the grid, below the number of objectives less one; `None` as for
    # `epsilon`
    delta: float | None = Field(default=None, gt=0)
    size: int | None = Field(default=None, ge=1)  # keep exactly so many members
    # file or list of prompts that policies are measured on; `None` takes the run's own
    prompts: str | tuple[str, ...] | None = None
    # use so many of them, selected at random; 0 uses all. Half selects members, half certifies
    n_prompts: int = Field(default=600, ge=0)
    n_answers: int = Field(default=1, ge=1)  # answers of every policy to every prompt
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
        """Epsilon and delta of the grid, those not given as tight as `max_policies` affords.

        Raises:
            InvalidInputError: not even the widest is affordable.
        """
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
