"""The spectral basis: how many directions the experts' tilts span, and which experts span them.

Every (state, token) pair sampled from the reference is a row of the tilt matrix

    M[(s, a), k] = sqrt(reference(a | s)) (tilt_k(s, a) - E_reference tilt_k(s, .)),

so that the squared norm of a column is the expert's mean squared tilt. If few singular values carry
the energy, few experts suffice; which ones is decided greedily by determinant.

Source: Spectral Souping, arXiv 2605.20408 (tilts of optimal policies are low-dimensional); Fedorov
1972, "Theory of Optimal Experiments", for D-optimality.

Deviation: the paper's features are unknown to us; low dimension is measured here, not assumed.
"""

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.soup.states import ByExpert, Coefficients, require_coefficients

ENERGIES = (0.9, 0.99, 0.999)
RIDGE = 1e-6  # part of the largest squared norm below which an expert counts as explained already


def tilt_matrix(
    reference: Float[np.ndarray, "states vocab"],
    expert_tilts: Float[np.ndarray, "experts states vocab"],
    *,
    state_shares: Float[np.ndarray, " states"] | None = None,
) -> Float[np.ndarray, "pairs experts"]:
    """The tilt matrix of sampled states.

    Tilts `log p_k - log p_0` are ignored where forbidden; states count equally by default, as
    samples do.

    Raises:
        InvalidInputError: shapes disagree, or a tilt of an allowed token is not finite.
    """
    if expert_tilts.ndim != 3 or expert_tilts.shape[1:] != reference.shape:
        raise InvalidInputError(
            f"Tilts of shape {expert_tilts.shape} do not fit a reference of {reference.shape}; "
            "give [experts, states, vocab]."
        )
    chances = np.exp(reference)
    known = np.where(chances > 0, expert_tilts, 0.0)
    if not np.all(np.isfinite(known)):
        raise InvalidInputError("A tilt is not finite; clip tilts before measuring their rank.")
    shares = np.full(len(reference), 1 / len(reference)) if state_shares is None else state_shares
    centred = known - np.sum(chances * known, axis=-1, keepdims=True)
    scaled = centred * np.sqrt(chances * np.asarray(shares)[:, None])
    return scaled.reshape(len(expert_tilts), -1).T


def effective_rank(matrix: Float[np.ndarray, "pairs experts"]) -> dict[float, int]:
    """Numbers of leading singular values that carry 90, 99 and 99.9 % of the energy.

    It holds for these experts: a family trained alike looks low-dimensional, whatever users want.

    Raises:
        InvalidInputError: the matrix is empty or not finite.
    """
    if matrix.ndim != 2 or not matrix.size or not np.all(np.isfinite(matrix)):
        raise InvalidInputError(
            f"A tilt matrix of shape {matrix.shape} must be finite and hold at least one expert."
        )
    values = np.linalg.svd(matrix, compute_uv=False)
    energy = np.cumsum(values**2)
    total = float(energy[-1])
    return {
        share: int(np.searchsorted(energy, share * total) + 1) if total > 0 else 0
        for share in ENERGIES
    }


def select_experts(
    matrix: Float[np.ndarray, "pairs experts"], *, n_experts: int
) -> tuple[int, ...]:
    """Indices of experts that span most, added one at a time by the determinant they add.

    Greedy D-optimality: each step takes the expert with the largest part not yet explained by those
    before it. The result of a smaller `n_experts` is a prefix of that of a larger one. Fewer come
    back when they explain the others already.

    Raises:
        InvalidInputError: the number lies outside 1 to all.
    """
    if not 1 <= n_experts <= matrix.shape[1]:
        raise InvalidInputError(
            f"{n_experts} experts cannot be selected from {matrix.shape[1]}; ask for 1 to all."
        )
    rest = matrix.copy()
    least = RIDGE * float(np.max(np.sum(matrix**2, axis=0), initial=0.0))
    selected: list[int] = []
    for _ in range(n_experts):
        norms = np.sum(rest**2, axis=0)
        norms[selected] = -1.0
        best = int(np.argmax(norms))
        if norms[best] <= least:
            break
        selected.append(best)
        direction = rest[:, best] / np.sqrt(norms[best])
        rest = rest - np.outer(direction, direction @ rest)
    return tuple(selected)


def expert_spread(matrix: Float[np.ndarray, "pairs experts"]) -> ByExpert:
    """Standard deviation of each expert's tilt over the sampled states and tokens, in nats."""
    return np.sqrt(np.sum(matrix**2, axis=0))


def active_experts(coefficients: Coefficients, *, spread: ByExpert, threshold: float) -> ByExpert:
    """The coefficients, with those of experts that hardly act set to zero.

    An expert is kept when `|lambda_k| spread_k >= threshold`; each one dropped saves a pass of the
    model per token. `research.soup.bounds.dropping_bound` says what that costs.
    """
    values = require_coefficients(coefficients, n_experts=len(spread))
    return np.where(np.abs(values) * spread >= threshold, values, 0.0)
