"""A simulated user, who answers comparisons by the model that beliefs assume."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from palate.core.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class SimulatedUser:
    """Answers comparisons by Bradley-Terry, and now and then at random."""

    coefficients: Float[np.ndarray, " features"]  # a preference where features are rewards
    gain: float = 1.0  # how sharply answers follow margins; one over the temperature
    lapse_share: float = 0.0  # share of answers given at random

    def __post_init__(self) -> None:
        """Refuse noise out of range."""
        if not (self.gain > 0 and 0 <= self.lapse_share <= 1):
            raise InvalidInputError(
                f"Gain {self.gain} and lapse share {self.lapse_share} must be above 0 and in "
                "[0, 1]."
            )

    def compare(
        self, feature: Float[np.ndarray, " features"], *, generator: np.random.Generator
    ) -> float:
        """The label of a comparison: 1 first preferred, 0 second.

        The generator gives two numbers each time, whether the user lapses or not.
        """
        lapse, chance = generator.random(2)
        margin = self.gain * float(self.coefficients @ feature)
        win = 0.5 if lapse < self.lapse_share else expit(margin)
        return float(chance < win)
