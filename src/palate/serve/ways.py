"""How the server asks for a plan; who answers is wired in `palate.recipes.serve`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.plan import Plan
from palate.serve.wire.palate import Way


@dataclass(frozen=True)
class Wanted:
    """What is known of a person.

    Attributes:
        way: How to answer.
        preference: Shares by objective, or `None`.
        coefficients: By expert, or `None`; they go before a preference where the way reads them.
        strength: Of coefficients that follow from a preference.
        is_learned: Whether preference and coefficients come from feedback.
    """

    way: Way
    preference: Mapping[str, float] | None = None
    coefficients: Mapping[str, float] | None = None
    strength: float = 1.0
    is_learned: bool = False


@dataclass(frozen=True)
class Decided:
    """A plan and why.

    Attributes:
        prompt: As the model reads it.
        plan: For the engine.
        way: That was taken; never `auto`.
        coefficients: By expert.
        why: One or two sentences.
        certified_loss: What is lost at most by the portfolio's member, reward units, or `None`.
    """

    prompt: str
    plan: Plan
    way: Way
    coefficients: dict[str, float]
    why: str
    certified_loss: float | None = None


@dataclass(frozen=True)
class Certified:
    """What a preference gets from the portfolio: member, certified loss, worth and margin."""

    member: str
    loss: float | None
    value: float
    margin: float | None


class Ways(Protocol):
    """Makes plans."""

    @property
    def available(self) -> tuple[Way, ...]:
        """Ways that can be asked for."""
        ...

    def decide(self, messages: str | Sequence[Mapping[str, str]], wanted: Wanted) -> Decided:
        """The plan for what is asked, the safety floor kept."""
        ...

    def certified(self, preferences: Float[ndarray, "points objectives"]) -> list[Certified]:
        """What each preference gets from the portfolio.

        Raises:
            InvalidInputError: there is no portfolio.
        """
        ...

    def portfolio(self) -> dict[str, Any] | None:
        """Members and certificate as plain data, or `None` without a portfolio."""
        ...


def points_of(
    preferences: Sequence[Mapping[str, float]], *, objectives: Sequence[str]
) -> Float[ndarray, "points objectives"]:
    """Preferences as rows; objectives that are not named get zero, unknown ones are left out."""
    return np.array([[row.get(name, 0.0) for name in objectives] for row in preferences])
