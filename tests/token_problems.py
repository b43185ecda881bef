"""Random token trees with exactly optimal experts."""

from dataclasses import dataclass

import numpy as np

from research.soup.trees import Policy, optimal_policy, policy_from_logits, soft_values


@dataclass
class Problem:
    reference: Policy
    returns: np.ndarray  # [experts, answers]
    experts: list[Policy]
    values: list[tuple[np.ndarray, ...]]
    beta: float
    coefficients: np.ndarray

    @property
    def pooled(self) -> np.ndarray:
        return self.coefficients @ self.returns


def random_problem(
    generator: np.random.Generator,
    *,
    vocab: int = 3,
    length: int = 3,
    n_experts: int = 3,
    coefficients: np.ndarray | None = None,
) -> Problem:
    logits = [generator.normal(size=(vocab**depth, vocab)) for depth in range(length)]
    reference = policy_from_logits(logits)
    returns = generator.normal(size=(n_experts, vocab**length)) * generator.uniform(0.3, 2.0)
    beta = float(generator.uniform(0.1, 1.5))
    if coefficients is None:
        coefficients = generator.normal(size=n_experts)
    return Problem(
        reference,
        returns,
        [optimal_policy(reference, row, beta=beta) for row in returns],
        [soft_values(reference, row, beta=beta) for row in returns],
        beta,
        np.asarray(coefficients),
    )
