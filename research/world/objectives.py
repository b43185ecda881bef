"""The six objectives of the small world, their three axes, and the eight users.

Each axis has two poles that pull against each other; a user wants one pole of every axis, which
makes 2^3 = 8 users. The objectives and the combinations are those of Personalized Soups
(arXiv 2310.11564, table 1): expertise, informativeness, style.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.core.simplex import require_simplex, vector_from_mapping
from palate.core.types import Objective

ELEMENTARY = Objective(
    "elementary", "Words that a child knows.", "Use simple words that a child knows."
)
EXPERT = Objective("expert", "The technical terms of the field.", "Use the terms of an expert.")
CONCISE = Objective("concise", "As few words as will do.", "Keep it short.")
INFORMATIVE = Objective("informative", "As many facts as there are.", "Tell me many facts.")
FRIENDLY = Objective("friendly", "A warm tone.", "Be friendly and warm.")
UNFRIENDLY = Objective("unfriendly", "A cold, impatient tone.", "Be unfriendly and cold.")

OBJECTIVES: tuple[Objective, ...] = (
    ELEMENTARY,
    EXPERT,
    CONCISE,
    INFORMATIVE,
    FRIENDLY,
    UNFRIENDLY,
)
OBJECTIVE_NAMES: tuple[str, ...] = tuple(objective.name for objective in OBJECTIVES)
AXES: dict[str, tuple[Objective, Objective]] = {
    "expertise": (ELEMENTARY, EXPERT),
    "informativeness": (CONCISE, INFORMATIVE),
    "style": (FRIENDLY, UNFRIENDLY),
}


@dataclass(frozen=True)
class Preference:
    """How much a user wants of each objective: a point of the simplex."""

    objectives: tuple[str, ...]  # names, in the library's order
    shares: tuple[float, ...]  # one per objective, non-negative, sum one

    def __post_init__(self) -> None:
        """Refuse shares off the simplex."""
        if len(self.objectives) != len(self.shares):
            raise InvalidInputError(
                f"The preference has {len(self.shares)} shares for {len(self.objectives)} "
                f"objectives."
            )
        object.__setattr__(self, "shares", tuple(require_simplex(self.shares).tolist()))

    @classmethod
    def from_mapping(
        cls, shares: Mapping[str, float], *, objectives: Sequence[str]
    ) -> "Preference":
        """The preference that names some objectives; the others get zero."""
        return cls(
            tuple(objectives), tuple(vector_from_mapping(shares, objectives=objectives).tolist())
        )

    def vector(self) -> Float[np.ndarray, " objectives"]:
        """The shares as an array."""
        return np.array(self.shares)


@dataclass(frozen=True)
class User:
    """Somebody who wants one pole of every axis, all three equally.

    Attributes:
        name: First name, for tables.
        objectives: One of each axis, in the order of `AXES`.
    """

    name: str
    objectives: tuple[Objective, Objective, Objective]

    @property
    def preference(self) -> Preference:
        """A third on each of the three objectives, over all six in the order of `OBJECTIVES`."""
        share = 1.0 / len(self.objectives)
        return Preference.from_mapping(
            {objective.name: share for objective in self.objectives}, objectives=OBJECTIVE_NAMES
        )

    @property
    def instruction(self) -> str:
        """The three preference sentences, joined."""
        return " ".join(objective.instruction for objective in self.objectives)

    @property
    def label(self) -> str:
        """The wanted poles, such as `expert, concise, friendly`."""
        return ", ".join(objective.name for objective in self.objectives)


_NAMES = ("Ana", "Bilal", "Chen", "Dora", "Emeka", "Freya", "Goro", "Hana")
USERS: tuple[User, ...] = tuple(
    User(name, (words, amount, tone))
    for name, (words, amount, tone) in zip(_NAMES, product(*AXES.values()), strict=True)
)
