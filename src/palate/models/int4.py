"""Linear layers whose matrix is of 4 bits already, multiplied in 4 bits where that is faster.

A GGUF base such as SmolLM2's Q4_1 has 16 equally spaced values in every group of 32 inputs:
`w = (q - 8) scale + zero`, `q` in 0..15. Its parameters in bfloat16 only repeat that at four times
the size, and a step of few sequences takes as long as reading them. So a matrix with such groups,
known by its values and not by its file, is kept a second time as `q`, scales and zeros (5 bits a
parameter), and multiplied by torch's own 4-bit product. Nothing is rounded to 4 bits here: scales
and zeros are rounded to bfloat16 as the parameters are, and log-probabilities are as far from
float32's as theirs.

Only passes of few tokens without gradients do so: above, bfloat16 through the processor's matrix
units is faster. Training, export and hashes see the bfloat16 matrix.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

GROUP = 32  # inputs with one scale and one zero, as GGUF has them
MOST_TOKENS = 16  # of a pass: 1.6x as fast as bfloat16 with 8 (one AVX-512 core), 0.7x with 32
_LEVELS = 16
_OUTPUTS = 16  # torch's product takes multiples of it
_PRECISION = 2.0**-7  # share of a group's largest value: two roundings to bfloat16
_FAST = ("AVX2", "AVX512")  # elsewhere torch has no vectorised product
_INNER_TILES = 1  # of torch's layout on CPUs; any other gives the same
_PACK: Any = torch.ops.aten._convert_weight_to_int4pack_for_cpu
_PRODUCT: Any = torch.ops.aten._weight_int4pack_mm_for_cpu


class Int4Linear(nn.Linear):
    """A linear layer without bias that has its matrix twice: in bfloat16 and in 4 bits."""

    packed: Tensor
    scales: Float[Tensor, "groups d_out 2"]
    version: int  # of the matrix that was packed: one that was changed since is not it

    def forward(self, input: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:  # noqa: A002
        """The product; shapes as in `nn.Linear`."""
        n_tokens = input.numel() // self.in_features
        is_stale = self.weight._version != self.version
        if n_tokens > MOST_TOKENS or torch.is_grad_enabled() or is_stale:
            return super().forward(input)
        flat = input.reshape(n_tokens, self.in_features)
        product = _PRODUCT(flat, self.packed, GROUP, self.scales)
        return product.view(*input.shape[:-1], self.out_features)


def use_int4(model: nn.Module) -> int:
    """Give every linear layer of 4-bit groups its second matrix; how many there were.

    Nothing happens off the CPU, in other types than bfloat16, and where torch has no fast product.
    """
    if torch.backends.cpu.get_cpu_capability() not in _FAST:
        return 0
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    return sum(_is_possible(layer) and _pack(layer) for layer in layers)


def _is_possible(layer: nn.Linear) -> bool:
    matrix, has_bias = layer.weight, "bias" in dict(layer.named_parameters())
    is_bfloat16 = matrix.dtype == torch.bfloat16 and matrix.device.type == "cpu"
    d_out, d_in = matrix.shape
    is_whole = d_in % GROUP == 0 and d_out % _OUTPUTS == 0
    return is_bfloat16 and is_whole and not has_bias and not matrix.is_inference()


def _pack(layer: nn.Linear) -> bool:
    """Whether the matrix is of 4-bit groups; the layer is then an `Int4Linear`."""
    is_other = _grouped(layer.weight[:_OUTPUTS]) is None  # most are known by their first rows
    groups = None if is_other else _grouped(layer.weight)
    if groups is None:
        return False
    levels, scales = groups
    own: Any = layer
    own.__class__ = Int4Linear
    own.packed, own.scales = _PACK(levels, _INNER_TILES), scales
    own.version = layer.weight._version
    return True


@torch.no_grad()
def _grouped(matrix: Tensor) -> tuple[Tensor, Tensor] | None:
    """Levels `[d_out, d_in]`, scales and zeros `[groups, d_out, 2]`, if that is the matrix."""
    groups = matrix.float().unflatten(1, (-1, GROUP))
    lowest, highest = groups.aminmax(dim=2, keepdim=True)
    scale = (highest - lowest) / (_LEVELS - 1)
    levels = ((groups - lowest) / scale.clamp(min=torch.finfo(torch.float32).tiny)).round()
    error = (torch.addcmul(lowest, levels, scale) - groups).abs_().amax(dim=2, keepdim=True)
    if bool((error > _PRECISION * torch.maximum(highest, -lowest)).any()):
        return None
    pairs = torch.cat([scale, lowest + _LEVELS // 2 * scale], dim=2)
    return levels.flatten(1).int(), pairs.transpose(0, 1).contiguous().bfloat16()
