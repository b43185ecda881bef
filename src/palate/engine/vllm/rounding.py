"""Rounding of soups' coefficients: users share adapters, and the loss is bounded.

Coefficients are rounded to multiples of a step. With `d` the difference, the loss is bounded twice:

    parameters      |sum_k d_k D_k|_F = sqrt(d' G d), with `G_jk = <D_j, D_k>` over all layers and
                    `D_k = s_k B_k A_k` the change that expert k makes; exact.
    distributions   TV(p_c, p_c+d) <= sum_k |d_k| r_k, with `r_k` the largest speed at which any
                    next-token distribution changes with coefficient k.

The second follows from `dp/dt = p (g - E g)` along the way from c to c + d, g the slope of the
log-probabilities: `TV <= 1/2 int E|sum_k d_k (g_k - E g_k)| dt <= sum_k |d_k| max 1/2 E|g_k - E
g_k|`. It holds where no state changes faster than `r_k`. `rates_of` measures these on the states of
some texts, at coefficients that users may have, as the largest
`TV(p_{c + h e_k}, p_{c - h e_k}) / 2h` over all tokens and points, so the bound is as good as those
states are typical.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.plan import parameter_soup_plan
from palate.core.seeds import generator_for
from palate.engine.bank import AdapterBank
from palate.engine.logprobs import Scored, row_distributions
from palate.models.adapter import Adapter
from palate.models.load import Base

RATE_STEP = 0.05  # of the central difference
N_POINTS = 12  # at which rates are measured


@dataclass(frozen=True, eq=False)
class Rounding:
    """How coefficients are rounded, and what is known of its price."""

    step: float  # coefficients become multiples of it; 0 leaves them as they are
    # inner products of experts' changes of all parameters
    gram: Float[np.ndarray, "experts experts"]
    rates: tuple[float, ...] = ()  # largest variation per unit of a coefficient; empty: unknown

    def __post_init__(self) -> None:
        """Refuse rates that are not one per expert."""
        if self.rates and len(self.rates) != len(self.gram):
            raise InvalidInputError(
                f"There are {len(self.rates)} rates for {len(self.gram)} experts; give one each."
            )

    def rounded(self, coefficients: Sequence[float]) -> "Rounded":
        """The nearest coefficients on the grid, and the bounds on what that changes.

        Raises:
            InvalidCoefficientsError: not one coefficient per expert.
        """
        exact = np.asarray(coefficients, dtype=np.float64)
        if exact.shape != (len(self.gram),):
            raise InvalidCoefficientsError(
                f"There are {exact.size} coefficients for {len(self.gram)} experts; give one each."
            )
        if self.step == 0.0:
            return Rounded(tuple(exact.tolist()), 0.0, 0.0)
        near = np.round(np.rint(exact / self.step) * self.step, 12) + 0.0  # no minus zero
        moved = exact - near
        if not np.any(np.abs(moved) > 1e-12):
            return Rounded(tuple(near.tolist()), 0.0, 0.0)
        norm = float(np.sqrt(max(0.0, moved @ self.gram @ moved)))
        bound = float(min(1.0, np.abs(moved) @ np.array(self.rates))) if self.rates else None
        return Rounded(tuple(near.tolist()), norm, bound)


@dataclass(frozen=True)
class Rounded:
    """Coefficients on the grid."""

    coefficients: tuple[float, ...]  # one per expert
    parameter_change: float  # Frobenius norm of what rounding changes of all parameters
    bound: float | None  # on the total variation of every next token; zero is exact, `None` unknown


def gram_of(adapters: Sequence[Adapter]) -> Float[np.ndarray, "experts experts"]:
    """`<D_j, D_k>` over all layers: `s_j s_k tr((A_j A_k') (B_k' B_j))`, by thin products only."""
    gram = np.zeros((len(adapters), len(adapters)))
    for j, first in enumerate(adapters):
        for k, second in enumerate(adapters[: j + 1]):
            gram[j, k] = gram[k, j] = sum(
                _inner(first, second, layer) for layer in first.keys() & second.keys()
            )
    return gram


def _inner(first: Adapter, second: Adapter, layer: str) -> float:
    left, right = first[layer], second[layer]
    down = left.down.double() @ right.down.double().T
    up = left.up.double().T @ right.up.double()
    return float(left.scale * right.scale * (down * up).sum())


def rates_of(
    base: Base,
    bank: AdapterBank,
    *,
    items: Sequence[Scored],
    points: Float[np.ndarray, "points experts"] | None = None,
) -> tuple[float, ...]:
    """`[experts]`: largest total variation per unit of each coefficient, over tokens and points.

    Measured at the answer tokens of the texts, around `points`, by default `users_points`.

    Raises:
        InvalidInputError: there are no texts or points.
    """
    if points is None:
        points = users_points(n_experts=bank.n_experts, n_points=N_POINTS, seed=0)
    if not items or not len(points):
        raise InvalidInputError("There are no texts or points to measure rates at; give some.")
    rates = np.zeros(bank.n_experts)
    for item, point, expert in product(items, points, range(bank.n_experts)):
        shift = RATE_STEP * np.eye(bank.n_experts)[expert]
        above, below = (soup_probs(base, bank, c, item) for c in (point + shift, point - shift))
        speed = 0.5 * (above - below).abs().sum(dim=1).max() / (2 * RATE_STEP)
        rates[expert] = max(rates[expert], float(speed))
    return tuple(rates.tolist())


def users_points(
    *, n_experts: int, n_points: int, seed: int
) -> Float[np.ndarray, "points experts"]:
    """Coefficients as users have them: half on the simplex, half of both signs in [-0.5, 1]."""
    generator = generator_for(seed, "points")
    simplex = generator.dirichlet(np.ones(n_experts), size=(n_points + 1) // 2)
    signed = generator.uniform(-0.5, 1.0, size=(n_points // 2, n_experts))
    return np.concatenate([simplex, signed])


def soup_probs(
    base: Base, bank: AdapterBank, coefficients: Float[np.ndarray, " experts"], item: Scored
) -> Float[Tensor, "tokens vocab"]:
    """The soup's next-token probabilities along an answer."""
    plan = parameter_soup_plan(coefficients.tolist())
    return torch.exp(row_distributions(base, bank, plan=plan, item=item)[0].double())
