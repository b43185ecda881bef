"""Simulated users: a taste, a noise, a change of mind, an adversary.

For tests and evaluation. A simulated user answers a comparison by the model that beliefs assume,
unless told to lapse (answer at random), to be an adversary (answer the opposite of the taste) or to
change taste after a number of answers.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.simplex import sample_simplex


@dataclass(frozen=True, eq=False)
class SimulatedUser:
    """Somebody who answers comparisons.

    Attributes:
        taste: `[features]`, a preference on the simplex or coefficients.
        gain: How sharply answers follow margins; one over the temperature.
        tie_width: Margins nearer to zero than this are answered with a tie.
        lapse_share: Share of answers given at random.
        is_adversary: Answers are the opposite of what the taste says.
        change_at: Number of answers after which the taste becomes `later_taste`; never where None.
        later_taste: `[features]`; needed with `change_at`.
    """

    taste: Float[ndarray, " features"]
    gain: float = 1.0
    tie_width: float = 0.0
    lapse_share: float = 0.0
    is_adversary: bool = False
    change_at: int | None = None
    later_taste: Float[ndarray, " features"] | None = None

    def __post_init__(self) -> None:
        """Refuse noise out of range and a change without a later taste."""
        if not (self.gain > 0 and self.tie_width >= 0 and 0 <= self.lapse_share <= 1):
            raise InvalidInputError(
                f"Gain {self.gain}, tie width {self.tie_width} and lapse share {self.lapse_share} "
                "must be above 0, at least 0 and in [0, 1]."
            )
        if (self.change_at is None) != (self.later_taste is None):
            raise InvalidInputError("A change of taste needs both its moment and the later taste.")

    def taste_at(self, n_answers: int) -> Float[ndarray, " features"]:
        """The taste after this many answers."""
        if self.change_at is None or self.later_taste is None or n_answers < self.change_at:
            return self.taste
        return self.later_taste

    def compare(
        self,
        feature: Float[ndarray, " features"],
        *,
        n_answers: int = 0,
        generator: np.random.Generator,
    ) -> float:
        """The label of a comparison: 1 first preferred, 0 second, 0.5 a tie.

        Args:
            feature: `[features]`, first answer's minus second's.
            n_answers: How many comparisons this user has answered before.
            generator: Draws the answer; two numbers each time, whatever the user is like.
        """
        lapse, chance = generator.random(2)
        margin = self.gain * float(self.taste_at(n_answers) @ feature)
        if lapse < self.lapse_share:
            return float(chance < 0.5)
        if abs(margin) < self.tie_width:
            return 0.5
        label = float(chance < expit(margin))
        return 1.0 - label if self.is_adversary else label


def simulate_users(
    n_users: int,
    *,
    n_objectives: int,
    gain: float = 10.0,
    change_at: int | None = None,
    generator: np.random.Generator,
) -> list[SimulatedUser]:
    """Users with preferences spread evenly over the simplex.

    Args:
        n_users: How many.
        n_objectives: Entries of a preference.
        gain: Of everybody.
        change_at: Everybody's taste is drawn anew after this many answers.
        generator: Draws the tastes.
    """
    shape = {"n_points": n_users, "n_objectives": n_objectives}
    users = [
        SimulatedUser(taste, gain=gain) for taste in sample_simplex(**shape, generator=generator)
    ]
    if change_at is None:
        return users
    later = sample_simplex(**shape, generator=generator)
    return [
        replace(user, change_at=change_at, later_taste=taste)
        for user, taste in zip(users, later, strict=True)
    ]
