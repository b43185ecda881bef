"""The library of the board: palate's own, which remembers the features of answers it has scored.

Simulated users compare the same few hundred answers again and again; a server meets every answer
once. What a method decides from is unchanged.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from palate import Library, Messages, Output


class BoardLibrary(Library):
    """A library that computes the features of an answer once."""

    @cached_property
    def remembered(self) -> dict[tuple[int, ...], list[float]]:
        """Context, -1 and answer to features."""
        return {}

    def features(
        self, context: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """`[answers][experts]`, as `Library.features`."""
        known = self.remembered
        features: list[list[float]] = []
        for tokens in answers:
            key = (*context, -1, *tokens)
            if key not in known:
                known[key] = super().features(context, [tokens])[0]
            features.append(known[key])
        return features

    def forget(self, *answers: tuple[int, ...]) -> None:
        """Compute the features of these answers anew when they are next needed."""
        for key in [key for key in self.remembered if _answer_in(key) in answers]:
            del self.remembered[key]


def _answer_in(key: tuple[int, ...]) -> tuple[int, ...]:
    return key[key.index(-1) + 1 :]


def outputs_of(library: Library, prompts: Sequence[Messages], **options: Any) -> list[Output]:
    """`Library.generate` for a list of prompts: one answer each, in order; none for none."""
    if not prompts:
        return []
    outputs = library.generate(list(prompts), **options)
    return outputs if isinstance(outputs, list) else [outputs]
