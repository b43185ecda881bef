import copy

import pytest
import torch
from torch import nn

from palate.models.int4 import GROUP, MOST_TOKENS, Int4Linear, use_int4

FAST = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
pytestmark = pytest.mark.skipif(not FAST, reason="torch has no fast 4-bit product here")


def four_bit(d_out: int, d_in: int, *, n_levels: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = d_out, d_in // GROUP
    levels = torch.randint(0, n_levels, (*shape, GROUP), generator=generator).float()
    levels[..., 0], levels[..., 1] = 0, n_levels - 1
    scale = torch.rand(*shape, 1, generator=generator) / 50 + 0.001
    lowest = -scale * (n_levels / 2 - torch.rand(*shape, 1, generator=generator))
    return (lowest + levels * scale).flatten(1)


def linear(matrix: torch.Tensor, *, dtype: torch.dtype = torch.bfloat16) -> nn.Sequential:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    layer.weight = nn.Parameter(matrix.clone(), requires_grad=False)
    return nn.Sequential(layer).to(dtype)


@pytest.mark.parametrize("n_tokens", [1, 3, MOST_TOKENS])
def test_the_product_is_as_near_to_float32_as_bfloat16s(n_tokens: int):
    matrix = four_bit(64, 96)
    plain, packed = linear(matrix), linear(matrix)
    assert use_int4(packed) == 1
    inputs = torch.randn(n_tokens, 1, 96).bfloat16()
    exact = inputs.float() @ matrix.T
    with torch.inference_mode():
        own, others = packed(inputs), plain(inputs)
    assert own.shape == (n_tokens, 1, 64)
    assert own.dtype == torch.bfloat16
    assert not torch.equal(own, others)  # it went another way
    assert (own - exact).norm() < 2 * (others - exact).norm()


def test_more_tokens_and_gradients_take_the_bfloat16_matrix():
    matrix = four_bit(64, 96)
    plain, packed = linear(matrix), linear(matrix)
    use_int4(packed)
    many, few = torch.randn(MOST_TOKENS + 1, 96).bfloat16(), torch.randn(1, 96).bfloat16()
    with torch.inference_mode():
        assert torch.equal(packed(many), plain(many))
    few.requires_grad_()
    packed(few).sum().backward()
    assert few.grad is not None


def test_a_changed_matrix_and_a_copy_of_it_count():
    packed = linear(four_bit(64, 96))
    use_int4(packed)
    inputs = torch.randn(1, 96).bfloat16()
    for model in (packed, copy.deepcopy(packed)):
        next(model.parameters()).zero_()
        with torch.inference_mode():
            assert not model(inputs).any()


@pytest.mark.parametrize(
    "model",
    [
        linear(torch.randn(64, 96)),
        linear(four_bit(64, 96, n_levels=32)),
        linear(four_bit(64, 96), dtype=torch.float32),
        linear(four_bit(24, 96)),
        nn.Sequential(nn.Linear(96, 64).bfloat16()),
    ],
    ids=["any values", "5 bits", "float32", "24 outputs", "a bias"],
)
def test_other_layers_are_left_alone(model: nn.Sequential):
    assert use_int4(model) == 0
    assert not isinstance(model[0], Int4Linear)
