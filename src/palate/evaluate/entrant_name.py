"""The name of an entrant: a method, and what is varied about it.

METHOD                    as it is
METHOD@N                  the user is known by a belief learned from N comparisons only
METHOD+best-of-N          the best of N candidates by the user's reward
METHOD@N+best-of-M        both
"""

import re
from dataclasses import dataclass

from palate.core.errors import InvalidInputError

AUTO, BASE, PROMPT, PORTFOLIO, MIXTURE = "auto", "base", "prompt", "portfolio", "mixture"
BESPOKE = "bespoke"
_PATTERN = re.compile(
    r"(?P<method>[^@+]+)(@(?P<n_comparisons>\d+))?(\+best-of-(?P<n_candidates>\d+))?"
)


@dataclass(frozen=True)
class EntrantName:
    """What a name says.

    Attributes:
        method: The method's own name.
        n_comparisons: Comparisons that the user is known by; `None` where the preference is stated.
        n_candidates: Of best of n; `None` leaves it to the method.
    """

    method: str
    n_comparisons: int | None = None
    n_candidates: int | None = None

    @property
    def is_plain(self) -> bool:
        """Whether nothing is varied."""
        return self.n_comparisons is None and self.n_candidates is None


def parse_name(name: str) -> EntrantName:
    """What an entrant's name says.

    Raises:
        InvalidInputError: it is none.

    Example:
        >>> parse_name("prompt+best-of-4")
        EntrantName(method='prompt', n_comparisons=None, n_candidates=4)
    """
    found = _PATTERN.fullmatch(name)
    if found is None:
        raise InvalidInputError(
            f"The method {name!r} cannot be read; use METHOD, METHOD@N or METHOD+best-of-N."
        )
    return EntrantName(
        found["method"], _number(found["n_comparisons"]), _number(found["n_candidates"])
    )


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
