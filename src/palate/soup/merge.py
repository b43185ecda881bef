"""One adapter from many: arithmetic of LoRA factors.

An adapter adds `scale * B A` to a linear map. The sum of several, with any signs, ranks and scales,
is again low-rank and exactly a single adapter of the summed rank:

    sum_k lambda_k s_k B_k A_k = [lambda_1 s_1 B_1 | ... | lambda_K s_K B_K] [A_1; ...; A_K].

Summing the `A`s and the `B`s apart is something else: it adds the products of every expert's `B`
with every other's `A`.

Source: Spectral Souping, arXiv 2605.20408, parameter soup; Hu et al. 2021, "LoRA"; Kalajdzievski
2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA".

Deviation: experts with coefficient zero are left out, so the merged rank is as small as can be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from palate.core.errors import FormatError, InvalidCoefficientsError, InvalidInputError
from palate.soup.states import ByExpert, Coefficients, require_coefficients


@dataclass(frozen=True, eq=False)
class Factors:
    """One adapter's part in one linear map: adds `scale * B A` to its matrix `[out, in]`."""

    A: Float[np.ndarray, "rank in"]
    B: Float[np.ndarray, "out rank"]
    lora_alpha: float  # numerator of the scale
    is_rank_stabilised: bool = False  # scale `lora_alpha / sqrt(rank)`, not `lora_alpha / rank`

    def __post_init__(self) -> None:
        """Refuse factors that do not multiply."""
        is_pair = self.A.ndim == 2 and self.B.ndim == 2
        if not is_pair or self.A.shape[0] != self.B.shape[1] or not self.A.shape[0]:
            raise FormatError(
                f"Factors A of shape {self.A.shape} and B of shape {self.B.shape} do not multiply; "
                "A is [rank, in], B is [out, rank], and the rank is at least one."
            )

    @property
    def rank(self) -> int:
        """Number of rows of `A`."""
        return len(self.A)

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.lora_alpha / (np.sqrt(self.rank) if self.is_rank_stabilised else self.rank)

    def delta(self) -> Float[np.ndarray, "out in"]:
        """The dense change of the matrix."""
        return self.scale * (self.B @ self.A)


@dataclass(frozen=True, eq=False)
class Compressed:
    """An adapter of smaller rank, and what that cost."""

    factors: Factors  # the closest of its rank in Frobenius norm; scale one
    relative_error: float  # norm of what was lost by the norm of the whole; zero when nothing was
    singular_values: tuple[float, ...]  # of the whole change, largest first


def merge(adapters: Sequence[Factors], coefficients: Coefficients) -> Factors:
    """The parameter soup as one adapter of scale one: exact.

    The adapters are of one linear map, in bank order; ranks and scales may differ.

    Returns:
        Rank: the sum of the ranks of the adapters with a coefficient other than zero; a zero
        adapter of rank one when there is none.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per adapter, or no adapters.
        FormatError: the adapters are of maps of different sizes.
    """
    weighted = require_same_map(adapters, coefficients)
    active = [(c, f) for c, f in zip(weighted, adapters, strict=True) if c != 0.0]
    if not active:
        return Factors(np.zeros_like(adapters[0].A[:1]), np.zeros_like(adapters[0].B[:, :1]), 1.0)
    A = np.concatenate([factors.A for _, factors in active], axis=0)
    B = np.concatenate([c * factors.scale * factors.B for c, factors in active], axis=1)
    return Factors(A, B, float(len(A)))


def merge_modules(
    adapters: Sequence[Mapping[str, Factors]], coefficients: Coefficients
) -> dict[str, Factors]:
    """`merge`, for every linear map that any of the adapters changes.

    An adapter that leaves a map alone adds nothing there. Ranks may differ from map to map.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per adapter.
        FormatError: two adapters disagree on the size of a map.
    """
    weighted = require_coefficients(coefficients, n_experts=len(adapters))
    names = sorted({name for adapter in adapters for name in adapter})
    merged: dict[str, Factors] = {}
    for name in names:
        there = [k for k, adapter in enumerate(adapters) if name in adapter]
        merged[name] = merge([adapters[k][name] for k in there], weighted[there])
    return merged


def compress(factors: Factors, *, rank: int) -> Compressed:
    """The closest adapter of a given rank, by QR of both factors and an SVD of the small rest.

    The dense change is never formed: time grows with `(in + out) rank^2`. A rank above the
    adapter's own, or above what the map can hold, is lowered to that.

    Raises:
        InvalidInputError: the rank is below one.

    Source: Eckart and Young 1936.
    """
    if rank < 1:
        raise InvalidInputError(f"An adapter of rank {rank} does not exist; use one or more.")
    left, left_core = np.linalg.qr(factors.scale * factors.B)
    right, right_core = np.linalg.qr(factors.A.T)
    U, values, Vt = np.linalg.svd(left_core @ right_core.T)
    rank = min(rank, len(values))
    root = np.sqrt(values[:rank])
    total = float(np.sum(values**2))
    lost = float(np.sum(values[rank:] ** 2))
    return Compressed(
        factors=Factors(
            A=root[:, None] * (Vt[:rank] @ right.T), B=(left @ U[:, :rank]) * root, lora_alpha=rank
        ),
        relative_error=float(np.sqrt(lost / total)) if total > 0 else 0.0,
        singular_values=tuple(values.tolist()),
    )


def require_same_map(adapters: Sequence[Factors], coefficients: Coefficients) -> ByExpert:
    """The coefficients `[experts]`, one for each adapter of one map; raises as `merge`."""
    if not adapters:
        raise InvalidCoefficientsError("There are no adapters to merge; give at least one.")
    sizes = {(factors.B.shape[0], factors.A.shape[1]) for factors in adapters}
    if len(sizes) != 1:
        raise FormatError(
            f"The adapters change maps of the sizes {sorted(sizes)} (out, in); "
            "only adapters of one base can be merged."
        )
    return require_coefficients(coefficients, n_experts=len(adapters))
