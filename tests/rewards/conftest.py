"""Small pairs with a known taste."""

import numpy as np
import pytest

from palate.core.types import PreferencePair
from palate.rewards.pairs import PairSet, pair_set

TOPICS = ("rain", "bread", "stars", "trains", "glass", "honey", "paper", "salt", "wind", "clocks")
FRIENDLY = ("Happy to help you, dear friend.", "What a lovely question, thank you.")
PLAIN = ("It is as follows.", "See the facts below.")


def friendly_pairs(n_pairs: int, *, seed: int) -> PairSet:
    """Pairs in which the chosen answer holds a friendly sentence and the rejected a plain one."""
    generator = np.random.default_rng(seed)
    pairs = []
    for index in range(n_pairs):
        topic = TOPICS[int(generator.integers(len(TOPICS)))]
        body = f"{topic.capitalize()} number {seed}-{index} matters to {topic} makers."
        chosen, rejected = (FRIENDLY[index % 2] + " " + body, PLAIN[index % 2] + " " + body)
        pairs.append(PreferencePair(f"Explain {topic} {seed}-{index}.", chosen, rejected))
    return pair_set(pairs, objective="friendly")


@pytest.fixture(scope="session")
def train_pairs() -> PairSet:
    return friendly_pairs(40, seed=1)


@pytest.fixture(scope="session")
def validation_pairs() -> PairSet:
    return friendly_pairs(30, seed=2)
