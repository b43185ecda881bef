"""Optimistic linear support as a user of MORL-Baselines runs it, on the yardstick problems.

Needs an environment of its own, because palate does not depend on it:

    python -m venv peer && peer/bin/pip install morl-baselines==1.3.0
    peer/bin/python benchmarks/linear_support/peer.py > peer.json

Prints what `compare.py` reads: for every problem the preferences asked for, the values kept and the
seconds spent outside the oracle.
"""

import contextlib
import io
import json
import sys
import time

import numpy as np
from morl_baselines.multi_policy.linear_support.linear_support import LinearSupport

KINDS = ((2, 0.02), (2, 0.1), (3, 0.02), (3, 0.1))
SEEDS = range(2)
TOLERANCE = 0.02


def log_sum_exp(values: np.ndarray, axis: int) -> np.ndarray:
    top = values.max(axis=axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.exp(values - top).sum(axis=axis))


class Problem:
    """The yardstick problem of palate's `portfolio/tabular.py`, drawn in the same order."""

    def __init__(self, seed: int, n_objectives: int, beta: float) -> None:
        rng = np.random.default_rng(seed)
        directions = np.abs(rng.normal(size=(30, 400, n_objectives)))
        directions /= np.linalg.norm(directions, axis=2, keepdims=True)
        self.rewards = directions * rng.beta(4, 2, size=(30, 400, 1))
        logits = rng.normal(size=(30, 400)) - 3.0 * self.rewards.mean(axis=2)
        self.reference = logits - log_sum_exp(logits, 1)[:, None]
        self.beta = beta

    def values(self, preference: np.ndarray) -> np.ndarray:
        """Values of the best policy for a preference: the oracle."""
        logits = self.reference + self.rewards @ preference / self.beta
        logs = logits - log_sum_exp(logits, 1)[:, None]
        policy = np.exp(logs)
        kl = (policy * (logs - self.reference)).sum(axis=1).mean()
        reward = (policy[:, :, None] * self.rewards).sum(axis=1).mean(axis=0)
        return reward - self.beta * kl


def run(problem: Problem, n_objectives: int, tolerance: float) -> dict[str, object]:
    """Ask for preferences until the search ends or fails."""
    search = LinearSupport(num_objectives=n_objectives, epsilon=tolerance, verbose=False)
    asked: list[list[float]] = []
    seconds, failure = 0.0, None
    try:
        while len(asked) < 100:
            start = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                preference = search.next_weight()
            seconds += time.perf_counter() - start
            if preference is None or search.ended():
                break
            asked.append([float(share) for share in preference])
            with contextlib.redirect_stdout(io.StringIO()):
                search.add_solution(problem.values(preference), preference)
    except Exception as error:  # noqa: BLE001 -- what the peer does on these problems is the result
        failure = f"{type(error).__name__}: {error}"
    return {
        "asked": asked,
        "values": [value.tolist() for value in search.ccs],
        "seconds": seconds,
        "failure": failure,
    }


def main() -> None:
    """Every problem once."""
    rows = [
        {
            "seed": seed,
            "objectives": d,
            "beta": beta,
            "tolerance": TOLERANCE,
            **run(Problem(seed, d, beta), d, TOLERANCE),
        }
        for d, beta in KINDS
        for seed in SEEDS
    ]
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
