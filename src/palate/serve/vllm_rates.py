"""How fast distributions change with each coefficient: what bounds the rounding of soups.

Measured in this process, on texts of one's own, at coefficients that users may have: the largest
`TV(p_{c + h e_k}, p_{c - h e_k}) / 2h` over all tokens and points. `palate.engine.vllm.rounding`
turns it into a bound; `check_rates` says how often that bound held on other texts and points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.plan import parameter_soup_plan
from palate.core.seeds import generator_for
from palate.engine.bank import AdapterBank
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.vllm.rounding import Rounding
from palate.models.load import Base

STEP = 0.05  # of the central difference


@dataclass(frozen=True)
class RateCheck:
    """How the bound of rounding did on texts and coefficients it was not made from.

    Attributes:
        n_tokens: Next-token distributions compared.
        n_outside: Those that changed by more than the bound.
        largest: Largest total variation that rounding caused.
        mean_bound: Of the bounds.
    """

    n_tokens: int
    n_outside: int
    largest: float
    mean_bound: float


def rounding_rates(
    base: Base,
    bank: AdapterBank,
    *,
    items: Sequence[Scored],
    points: Float[ndarray, "points experts"],
) -> tuple[float, ...]:
    """`[experts]`: largest total variation per unit of each coefficient, over tokens and points.

    Args:
        base: In this process.
        bank: The experts.
        items: Texts whose answer tokens are the states.
        points: Coefficients around which the change is measured.

    Raises:
        InvalidInputError: there are no texts or points.
    """
    if not items or not len(points):
        raise InvalidInputError("There are no texts or points to measure rates at; give some.")
    rates = np.zeros(bank.n_experts)
    for item in items:
        for point in points:
            for expert in range(bank.n_experts):
                shift = np.zeros(bank.n_experts)
                shift[expert] = STEP
                above = _probs(base, bank, point + shift, item)
                below = _probs(base, bank, point - shift, item)
                speed = 0.5 * (above - below).abs().sum(dim=1).max() / (2 * STEP)
                rates[expert] = max(rates[expert], float(speed))
    return tuple(rates.tolist())


def check_rates(
    base: Base,
    bank: AdapterBank,
    rounding: Rounding,
    *,
    items: Sequence[Scored],
    points: Float[ndarray, "points experts"],
) -> RateCheck:
    """How often rounding these coefficients stayed within its bound on these texts."""
    found: list[float] = []
    bounds: list[float] = []
    for item in items:
        for point in points:
            near = rounding.rounded(point.tolist())
            exact = _probs(base, bank, point, item)
            moved = _probs(base, bank, np.array(near.coefficients), item)
            gaps = 0.5 * (exact - moved).abs().sum(dim=1)
            found += gaps.tolist()
            bounds += [1.0 if near.bound is None else near.bound] * len(gaps)
    outside = sum(gap > bound + 1e-9 for gap, bound in zip(found, bounds, strict=True))
    return RateCheck(len(found), outside, max(found), float(np.mean(bounds)))


def users_points(*, n_experts: int, n_points: int, seed: int) -> Float[ndarray, "points experts"]:
    """Coefficients as users have them: half on the simplex, half of both signs in [-0.5, 1]."""
    generator = generator_for(seed, "points")
    simplex = generator.dirichlet(np.ones(n_experts), size=(n_points + 1) // 2)
    signed = generator.uniform(-0.5, 1.0, size=(n_points // 2, n_experts))
    return np.concatenate([simplex, signed])


def _probs(
    base: Base, bank: AdapterBank, coefficients: Float[ndarray, " experts"], item: Scored
) -> Float[Tensor, "tokens vocab"]:
    plan = parameter_soup_plan(coefficients.tolist())
    return torch.exp(row_distributions(base, bank, plan=plan, item=item)[0].double())
