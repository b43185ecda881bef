"""Names of entrants, and what each method is and needs: the lines of `catalogue.yaml`.

An entrant is a method with what is varied about it:

    METHOD                    as it is
    METHOD@N                  the user is known by a belief learned from N comparisons only
    METHOD+best-of-N          the best of N candidates by the user's reward
    METHOD@N+best-of-M        both
"""

import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import yaml

from palate.core.errors import InvalidInputError

AUTO, BASE, PROMPT, PORTFOLIO, MIXTURE = "auto", "base", "prompt", "portfolio", "mixture"
IMPLICIT = "implicit-soup"
_PATTERN = re.compile(
    r"(?P<method>[^@+]+)(@(?P<n_comparisons>\d+))?(\+best-of-(?P<n_candidates>\d+))?"
)


@dataclass(frozen=True)
class EntrantName:
    """What a name says."""

    method: str
    n_comparisons: int | None = None  # that the user is known by; None: the preference is stated
    n_candidates: int | None = None  # of best of n; None leaves it to the method

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
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise InvalidInputError(
            f"The method {name!r} cannot be read; use METHOD, METHOD@N or METHOD+best-of-N."
        )
    n_comparisons, n_candidates = match["n_comparisons"], match["n_candidates"]
    return EntrantName(
        match["method"],
        None if n_comparisons is None else int(n_comparisons),
        None if n_candidates is None else int(n_candidates),
    )


@dataclass(frozen=True)
class Entry:
    """One method."""

    title: str  # for headings
    what: str  # one sentence
    trained: str  # what has to be trained
    runs_on: str  # what can serve it
    is_ceiling: bool = False  # costs one training per user, so it is a yardstick and no choice
    is_rival: bool = False  # palate does not serve it; it is compared with
    reads_words: bool = False  # the prompt says in words what the user wants


@cache
def _entries() -> dict[str, Entry]:
    lines = yaml.safe_load(files("palate.evaluate").joinpath("catalogue.yaml").read_text())
    return {name: Entry(**line) for name, line in lines.items()}


def entry_of(method: str) -> Entry:
    """The method's line; what is varied about it is in the title.

    Example:
        >>> entry_of("soup@5+best-of-4").title
        'Soup, after 5 comparisons, best of 4'
    """
    try:
        name = parse_name(method)
    except InvalidInputError:
        return Entry(method, "", "", "")
    entry = _entries().get(name.method, Entry(name.method, "", "", ""))
    title = entry.title
    if name.n_comparisons is not None:
        title += f", after {name.n_comparisons} comparisons"
    if name.n_candidates is not None:
        title += f", best of {name.n_candidates}"
    return replace(entry, title=title)
