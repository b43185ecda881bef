"""Entrants: who takes part in a comparison, and how it decides for a user.

An entrant is a method with what is varied about it. Every answer of every entrant comes from
`Library.decide` and `palate.library.generate.generate_all`, with the same seed for the same user,
prompt and copy.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from palate.core.decision import Decision, Known, Method
from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.evaluate.catalogue import BESPOKE, parse_name
from palate.evaluate.rivals import PERSONALISED, RIVALS
from palate.evaluate.suite import UserSettings
from palate.library.library import Library
from palate.methods.table import METHODS
from palate.rewards.texts import messages_of

FLOAT_BYTES = 4  # of a number that is stored for a user, as float32


@dataclass(frozen=True, eq=False)
class Entrant:
    """One method in the comparison."""

    name: str
    library: Library  # decides and answers
    method: str | Method  # a name in the library's methods, or an object
    n_candidates: int | None  # of best of n; None leaves it to the method
    known: Callable[[UserSettings], Known]  # of a user
    fingerprint: str  # of everything on disk that its answers depend on
    n_adapter_bytes: int = 0  # of parameters of a user's own

    def decide(self, user: UserSettings, prompt: str) -> Decision:
        """The decision for a user's prompt; raises as `Library.decide`."""
        messages, known = messages_of(prompt), self.known(user)
        return self.library.decide(
            messages, known, method=self.method, n_candidates=self.n_candidates
        )

    def n_bytes(self, user: UserSettings) -> int:
        """Bytes stored for a user: preference, words or belief, and adapters of their own."""
        known = self.known(user)
        numbers = len(known.preference or {})
        if known.belief is not None:
            n = len(known.belief.mean)
            numbers += n + n * (n + 1) // 2
        words = len((known.instruction or "").encode())
        return FLOAT_BYTES * numbers + words + self.n_adapter_bytes


def stated(user: UserSettings) -> Known:
    """A user who states a preference, and perhaps their own words."""
    return Known(preference=user.preference, instruction=user.instruction or None)


def require_methods(names: Sequence[str], own: Collection[str] = ()) -> None:
    """Raise `InvalidInputError` where a method is neither palate's, a rival, nor one's own."""
    known = [*METHODS, *RIVALS, PERSONALISED, BESPOKE, *own]
    for name in names:
        method = parse_name(name).method
        if method not in known:
            raise InvalidInputError(
                f"The method {method!r} is unknown; use {', '.join(known)}, METHOD@N or "
                "METHOD+best-of-N."
            )


def fingerprint_of(library: Library) -> str:
    """Of everything in the library that answers depend on, given their plans."""
    facts = library.manifest.to_json()
    facts.pop("versions", None)
    floor = None if library.floor is None else [library.floor.name, library.floor.coefficient]
    return hash_value([facts, floor])[:12]
