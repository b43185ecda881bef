"""Fixtures: the two exact cases of PALM and small random problems."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

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
