"""Linear layers that keep their matrix in the forms in which passes of few tokens are fastest.

A step of few sequences takes as long as reading the parameters. torch's bfloat16 product reads a
matrix in the layout of training, and rearranges it in every call; oneDNN's, given a matrix that was
rearranged once, is 1.4 to 1.8 times as fast with up to 32 tokens, the same sum in another order.

A GGUF base such as SmolLM2's Q4_1 has 16 equally spaced values in every group of 32 inputs:
`w = (q - 8) scale + zero`, `q` in 0..15. Its parameters in bfloat16 only repeat that at four times
the size. So matrices with such groups, known by their values and not by their file, are kept as
`q`, scales and zeros, too (5 bits a parameter), and multiplied by torch's own 4-bit product where
that is faster still. Nothing is rounded to 4 bits here: scales and zeros are rounded to bfloat16 as
the parameters are, and log-probabilities are as far from float32's as theirs.

Layers that read the same input (queries, keys and values; gate and up) are one product. Passes of
many tokens or with gradients, training, export and hashes see the bfloat16 matrix.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

GROUP = 32  # inputs with one scale and one zero, as GGUF has them
MOST_TOKENS = 64  # of a pass; with more, oneDNN's product of the plain matrix is as fast
MOST_INT4_TOKENS = 4  # with 8, the 4-bit product is 0.7x as fast as the rearranged matrix's
MOST_INT4_TOKENS_ALONE = 16  # where there is no rearranged matrix; with 32 the plain one is faster
MOST_PARAMETERS = 10**9  # of a model; larger ones are not kept twice
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # they read the same input
_LEVELS = 16
_OUTPUTS = 16  # torch's 4-bit product takes multiples of it
_PRECISION = 2.0**-7  # share of a group's largest value: two roundings to bfloat16
_FAST = ("AVX2", "AVX512")  # elsewhere torch has no vectorised product
_INNER_TILES = 1  # of torch's layout on CPUs; any other gives the same
_PACK: Any = torch.ops.aten._convert_weight_to_int4pack_for_cpu
_PRODUCT: Any = torch.ops.aten._weight_int4pack_mm_for_cpu
_ONEDNN: Any = torch.ops.mkldnn


class PackedLinear(nn.Linear):
    """A linear layer without bias whose matrix is kept in bfloat16 and in faster forms."""

    matrices: "Matrices | None"  # of this layer and those beside it; copies have none
    place: int  # among them

    def forward(self, input: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:  # noqa: A002
        """The product; shapes as in `nn.Linear`."""
        n_tokens = input.numel() // self.in_features
        if n_tokens > MOST_TOKENS or self.matrices is None or torch.is_grad_enabled():
            return super().forward(input)
        output = self.matrices.output(self.place, input, n_tokens=n_tokens)
        return super().forward(input) if output is None else output


class Matrices:
    """The matrices of layers that read the same input, one below the other."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        """Pack what has 4-bit groups; the rest is rearranged when it is first needed."""
        self._layers: list[Any] = list(layers)
        self._sizes = [layer.out_features for layer in layers]
        self._versions = self._current()
        self._rearranged: Rearranged | None = None
        groups = [_groups_of(layer.weight) for layer in layers]
        self._levels = self._scales = None
        if not any(group is None for group in groups):
            levels, scales = zip(*(group for group in groups if group is not None), strict=True)
            self._levels = _PACK(torch.cat(levels), _INNER_TILES)
            self._scales = torch.cat(scales, dim=1)
        # the latest input and its outputs, each until its layer takes it
        self._latest: tuple[Tensor | None, dict[int, Tensor]] = None, {}

    def __deepcopy__(self, memo: object) -> None:
        """Nothing: a copied matrix may change."""

    @property
    def is_int4(self) -> bool:
        """Whether all are of 4-bit groups."""
        return self._levels is not None

    def output(
        self, place: int, source: Float[Tensor, "... d_in"], *, n_tokens: int
    ) -> Float[Tensor, "... d_out"] | None:
        """One layer's product; `None` where its plain matrix is to be used."""
        latest, outputs = self._latest
        if latest is not source or place not in outputs:
            if self._versions != self._current():
                return None
            product = self._product(source.reshape(n_tokens, -1), n_tokens)
            if product is None:
                return None
            product = product.view(*source.shape[:-1], -1)
            if len(self._sizes) == 1:
                return product
            outputs = dict(enumerate(product.split_with_sizes(self._sizes, dim=-1)))
            self._latest = source, outputs
        result = outputs.pop(place)
        if not outputs:
            self._latest = None, outputs
        return result

    def _product(self, flat: Tensor, n_tokens: int) -> Tensor | None:
        most = MOST_INT4_TOKENS if has_onednn() else MOST_INT4_TOKENS_ALONE
        if self._levels is not None and n_tokens <= most:
            return _PRODUCT(flat, self._levels, GROUP, self._scales)
        if not has_onednn():
            return None
        if self._rearranged is None:
            self._rearranged = Rearranged(torch.cat([layer.weight for layer in self._layers]))
        return self._rearranged.product(flat)

    def _current(self) -> list[tuple[int, int]]:
        """Changes with every change of a matrix."""
        weights = [layer._parameters["weight"] for layer in self._layers]  # faster than by name
        return [(one.data_ptr(), one._version) for one in weights if one is not None]


@cache
def has_onednn() -> bool:
    """Whether torch has oneDNN's product in bfloat16 on this processor."""
    return bool(_ONEDNN._is_mkldnn_bf16_supported())


class Rearranged:
    """A matrix `[d_out, d_in]` as oneDNN reads it, which never changes; copies share it."""

    def __init__(self, matrix: Float[Tensor, "d_out d_in"]) -> None:
        """Rearrange it; see `is_possible`."""
        with torch.no_grad():
            self._matrix = _ONEDNN._reorder_linear_weight(matrix.detach().contiguous(), 1)

    @classmethod
    def is_possible(cls, matrix: Float[Tensor, "d_out d_in"]) -> bool:
        """Whether the type, the device and the processor have it."""
        return matrix.dtype == torch.bfloat16 and matrix.device.type == "cpu" and has_onednn()

    def __deepcopy__(self, memo: object) -> "Rearranged":
        """Itself."""
        return self

    def product(self, rows: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        """`rows @ matrix.T`, without gradients."""
        return _ONEDNN._linear_pointwise(rows, self._matrix, None, "none", [], "")

    def added(
        self, start: Float[Tensor, "rows d_out"], rows: Float[Tensor, "rows d_in"]
    ) -> Float[Tensor, "rows d_out"]:
        """`start + rows @ matrix.T`, without gradients."""
        parts = rows, start.contiguous(), self._matrix
        return _ONEDNN._linear_pointwise.binary(*parts, None, "add")


def pack_linear(model: nn.Module) -> int:
    """Let every linear layer without bias keep its matrix in faster forms; how many have 4 bits.

    Nothing happens off the CPU, in other types than bfloat16, and where torch has no fast product.
    """
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    if torch.backends.cpu.get_cpu_capability() not in _FAST or n_parameters > MOST_PARAMETERS:
        return 0
    n_int4 = 0
    for parent in model.modules():
        own = {name: one for name, one in parent.named_children() if type(one) is nn.Linear}
        for names in (*SIBLINGS, *((name,) for name in own)):
            layers = [own[name] for name in names if name in own and _is_possible(own[name])]
            if layers and len({layer.in_features for layer in layers}) == 1:
                n_int4 += _pack(layers)
    return n_int4


def _is_possible(layer: nn.Linear) -> bool:
    matrix, has_bias = layer.weight, "bias" in dict(layer.named_parameters())
    is_bfloat16 = matrix.dtype == torch.bfloat16 and matrix.device.type == "cpu"
    return type(layer) is nn.Linear and is_bfloat16 and not has_bias and not matrix.is_inference()


def _pack(layers: Sequence[nn.Linear]) -> int:
    matrices = Matrices(layers)
    for place, layer in enumerate(layers):
        own: Any = layer
        own.__class__ = PackedLinear
        own.matrices, own.place = matrices, place
    return len(layers) if matrices.is_int4 else 0


@torch.no_grad()
def _groups_of(matrix: Tensor) -> tuple[Tensor, Tensor] | None:
    """Levels `[d_out, d_in]`, scales and zeros `[groups, d_out, 2]`, if that is the matrix."""
    d_out, d_in = matrix.shape
    if d_in % GROUP or d_out % _OUTPUTS:
        return None
    if d_out > _OUTPUTS and _groups_of(matrix[:_OUTPUTS]) is None:
        return None  # most are known by their first rows
    groups = matrix.float().unflatten(1, (-1, GROUP))
    lowest, highest = groups.aminmax(dim=2, keepdim=True)
    scale = (highest - lowest) / (_LEVELS - 1)
    levels = ((groups - lowest) / scale.clamp(min=torch.finfo(torch.float32).tiny)).round()
    error = (torch.addcmul(lowest, levels, scale) - groups).abs_().amax(dim=2, keepdim=True)
    if bool((error > _PRECISION * torch.maximum(highest, -lowest)).any()):
        return None
    pairs = torch.cat([scale, lowest + _LEVELS // 2 * scale], dim=2)
    return levels.flatten(1).int(), pairs.transpose(0, 1).contiguous().bfloat16()
