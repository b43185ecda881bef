"""An entrant of the board, and how an answer of it is asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from palate import Library, Method
from research.board.parts import Parts
from research.board.users import BoardUser


@dataclass(frozen=True, eq=False)
class Posed:
    """How a user's answer is asked for."""

    library: Library
    method: str | Method
    known: Mapping[str, Any]  # fields of `Known`
    n_candidates: int | None = None
    n_bytes: int = 0  # kept for the user


@dataclass(frozen=True)
class Entrant:
    """One line of the board."""

    name: str
    title: str
    knows: str  # `nothing`, `sliders`, `words`, `comparisons` or `words and comparisons`
    pose: Callable[[Parts, BoardUser], Posed] = field(repr=False)
    is_ours: bool = False
    is_trained: bool = False  # of experts or adapters: measured on every library of the board
    n_comparisons: int = 0  # that it knows of a user
    wording: str = ""  # which words a learned user was described with before
    adapters: str = ""  # the build of adapters that it needs
    passes: float = 1.0  # expected per sampled token, for the estimate of time
    needs: Callable[[Library], bool] = field(default=lambda _: True, repr=False)

    @property
    def is_learned(self) -> bool:
        """Whether a store has learned the user from comparisons."""
        return self.is_ours and self.n_comparisons > 0

    @property
    def method(self) -> str:
        """Palate's method that a learned entrant is answered by."""
        return self.name.partition("@")[0].partition(":")[0]
