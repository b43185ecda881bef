"""Intervals of studies with sentences as users hold what other prompts would have changed."""

import numpy as np

from libraries import turns, words
from palate.core.seeds import generator_for

ROWS = [{"kind": "instruction"}] * 12 + [{"kind": "profile"}] * 8 + [{"kind": "vague"}] * 4


def drawn(repeat: int) -> np.ndarray:
    """`[sentences, prompts]` without any effect but the prompts', whose mean is zero."""
    generator = generator_for(repeat, "prompts that differ")
    own = generator.standard_normal((1, 10))
    return own + 0.5 * generator.standard_normal((len(ROWS), 10))


def test_effects_of_the_prompts_are_in_the_intervals_of_words() -> None:
    n_covered = 0
    for repeat in range(60):
        table = {name: drawn(repeat) for name in words.METHODS}
        row = words.summary(table, ROWS)["auto, all"]
        n_covered += row["low"] <= 0.0 <= row["high"]
    assert n_covered >= 52  # 57 are expected; over sentences alone it is about 15


def test_effects_of_the_prompts_are_in_the_intervals_after_turns() -> None:
    n_covered = 0
    for repeat in range(60):
        own = list(drawn(repeat))
        gains = {(name, n): own for name in turns.METHODS for n in (0, 8)}
        tokens = {key: [1.0] for key in gains}
        row = turns.summary(gains, tokens, [0, 8])["soup after 0"]
        n_covered += row["low"] <= 0.0 <= row["high"]
    assert n_covered >= 52
