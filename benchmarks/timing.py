"""Ratios measured side by side in one run.

Contestants take turns (A, B, A, B ...) after a warm-up, so that what else the machine does falls on
all of them;
minimum and median are kept. Absolute times on shared machines mean little, ratios more.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from palate.core.errors import InvalidInputError
from palate.core.settings import Settings

MIN_REPEATS = 15


class RaceSettings(Settings):
    """Sizes that the races of the engine share; the defaults are a Llama of 26 M parameters."""

    hidden: int = Field(default=512, ge=64, multiple_of=64)
    intermediate: int = Field(default=1376, ge=1)
    n_layers: int = Field(default=8, ge=1)
    vocab: int = Field(default=1024, ge=2)
    n_experts: int = Field(default=8, ge=1)
    rank: int = Field(default=16, ge=1)
    n_repeats: int = Field(default=15, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant.

    Attributes:
        minimum_seconds: Fastest of the repeats.
        median_seconds: Middle of the repeats.
        n_repeats: How often it ran after the warm-up.
    """

    minimum_seconds: float
    median_seconds: float
    n_repeats: int

    def ratio_to(self, other: "Timing") -> float:
        """How many times this median is the other's; above one is slower."""
        return self.median_seconds / other.median_seconds


def race(
    contestants: Mapping[str, Callable[[], object]],
    *,
    n_repeats: int = MIN_REPEATS,
    n_warm_up: int = 2,
) -> dict[str, Timing]:
    """Interleaved timings of the contestants.

    Raises:
        InvalidInputError: fewer than one repeat.
    """
    if n_repeats < 1:
        raise InvalidInputError(f"The benchmark has {n_repeats} repeats; give at least 1.")
    for run in contestants.values():
        for _ in range(n_warm_up):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(n_repeats):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: Timing(min(times), float(np.median(times)), n_repeats)
        for name, times in seconds.items()
    }
