"""Fixtures: the two exact cases of PALM and small random problems."""

import json
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from palate.core.simplex import lattice
from research.portfolio.tabular import TabularProblem


@pytest.fixture(scope="session")
def tabular_case(shared_folder: Path) -> dict[str, Any]:
    return json.loads((shared_folder / "methods/cases/tabular_kl.json").read_text())


@pytest.fixture(scope="session")
def grid_case(shared_folder: Path) -> dict[str, Any]:
    return json.loads((shared_folder / "methods/cases/palm_grid.json").read_text())


@pytest.fixture(scope="session")
def case_problem(tabular_case: dict[str, Any]) -> TabularProblem:
    return TabularProblem(
        rewards=np.array(tabular_case["rewards"]),
        reference_log_probs=np.log(tabular_case["pi_ref"]),
        prompt_probabilities=np.array(tabular_case["prompt_probabilities"]),
        beta=tabular_case["beta"],
    )


@pytest.fixture(scope="session")
def small_problem():
    """A random problem: `small_problem(seed, n_objectives, beta)`."""

    def make(seed: int, n_objectives: int, beta: float = 0.1) -> TabularProblem:
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(5, 12))
        return TabularProblem(
            rewards=rng.random((5, 12, n_objectives)),
            reference_log_probs=logits - logsumexp(logits, axis=1, keepdims=True),
            prompt_probabilities=np.full(5, 0.2),
            beta=beta,
        )

    return make


def all_cells(*, n_objectives: int, denominator: int) -> tuple[np.ndarray, np.ndarray]:
    """The lattice points and the point indices of all `denominator ** (d - 1)` Kuhn cells."""
    points = lattice(n_objectives=n_objectives, denominator=denominator)
    index = {tuple(row): i for i, row in enumerate(np.rint(points * denominator).astype(int))}
    free = n_objectives - 1
    cells = []
    for corner in product(range(denominator), repeat=free):
        for order in permutations(range(free)):
            reach = [np.array(corner, dtype=int)]
            for axis in order:
                reach.append(reach[-1] + np.eye(free, dtype=int)[axis])
            counts = [np.diff([0, *each, denominator]) for each in reach]
            if all(np.all(each >= 0) for each in counts):  # inside the simplex
                cells.append(sorted(index[tuple(each)] for each in counts))
    return points, np.array(sorted(cells), dtype=np.int64).reshape(-1, n_objectives)


def cell_coverage(is_covered: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Which cells each policy covers: those all of whose vertices it covers (palm.md P7)."""
    return np.all(is_covered[cells], axis=1)
