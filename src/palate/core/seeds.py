"""Seeds: every random choice takes a generator, and every generator has a name.

The seed of a step is derived from the job's seed and the step's name, so that adding a step, or
resuming in the middle, leaves the other steps' numbers unchanged.
"""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and every name, the same in every process."""
    text = "/".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the named step of the job with this seed."""
    return np.random.default_rng(derive_seed(seed, *names))
