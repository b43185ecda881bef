"""Settings of a portfolio in a run file: which policies to look for, until when, and who judges."""

from typing import Literal

from pydantic import Field, model_validator

from palate.core.settings import Settings

OracleKind = Literal["trained", "decoding", "soup"]


class PortfolioSettings(Settings):
    """A certified portfolio, and the experts that it asks for.

    Attributes:
        search: `adaptive`: where the certificate is weakest, until the tolerance or the budget is
            met; `grid`: PALM as published, one policy per preference of a ratio grid.
        oracle: How a policy for a preference is made; see `palate.recipes.palm_oracles`.
        tolerance: In reward units: the search stops when nobody can lose more, and without a
            `size` as few members are kept as lose no more by the estimates.
        max_policies: Budget, the objectives' own policies among them.
        epsilon: Of the grid: multiplicative tolerance.
        delta: Of the grid: additive tolerance, below the number of objectives less one.
        size: Keep exactly so many members.
        prompts: JSONL with a column `prompt` that policies are measured on, or `world`; `None`
            takes the run's own.
        n_prompts: Use so many of them, drawn at random; 0 uses all. Half chooses, half certifies.
        n_answers: Of every policy to every prompt.
        confidence: Of the certificate.
        slack: Assume that every policy is so near to optimal for its own preference, and certify
            against all policies there could be; `None` compares those that were made.
    """

    search: Literal["adaptive", "grid"] = "adaptive"
    oracle: OracleKind = "trained"
    tolerance: float = Field(default=0.02, gt=0)
    max_policies: int = Field(default=14, ge=1)
    epsilon: float = Field(default=1.0, gt=0)
    delta: float = Field(default=1.0, gt=0)
    size: int | None = Field(default=None, ge=1)
    prompts: str | None = None
    n_prompts: int = Field(default=600, ge=0)
    n_answers: int = Field(default=1, ge=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    slack: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _is_affordable(self) -> "PortfolioSettings":
        if self.size is not None and self.size > self.max_policies:
            raise ValueError(
                f"size={self.size} members cannot come from max_policies={self.max_policies}"
            )
        return self
