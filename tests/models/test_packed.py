import copy

import pytest
import torch
from torch import nn

from palate.models import packed
from palate.models.packed import (
    GROUP,
    MOST_INT4_TOKENS,
    MOST_TOKENS,
    PackedLinear,
    Rearranged,
    has_onednn,
    pack_linear,
)

FAST = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
pytestmark = pytest.mark.skipif(not FAST, reason="torch has no fast product of few tokens here")
needs_onednn = pytest.mark.skipif(not has_onednn(), reason="no bfloat16 in oneDNN here")


def four_bit(d_out: int, d_in: int, *, n_levels: int = 16, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = d_out, d_in // GROUP
    levels = torch.randint(0, n_levels, (*shape, GROUP), generator=generator).float()
    levels[..., 0], levels[..., 1] = 0, n_levels - 1
    scale = torch.rand(*shape, 1, generator=generator) / 50 + 0.001
    lowest = -scale * (n_levels / 2 - torch.rand(*shape, 1, generator=generator))
    return (lowest + levels * scale).flatten(1)


def any_values(d_out: int, d_in: int) -> torch.Tensor:
    return torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(1)) / d_in**0.5


def linear(matrix: torch.Tensor, *, dtype: torch.dtype = torch.bfloat16) -> nn.Sequential:
    return nn.Sequential(layer_of(matrix)).to(dtype)


def layer_of(matrix: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    layer.weight = nn.Parameter(matrix.clone(), requires_grad=False)
    return layer


class Attention(nn.Module):
    """Three layers that read the same input."""

    def __init__(self, matrices: list[torch.Tensor]) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = map(layer_of, matrices)

    def forward(self, source: torch.Tensor) -> list[torch.Tensor]:
        return [self.v_proj(source), self.q_proj(source), self.k_proj(source)]


def attention(*, is_int4: bool = True) -> Attention:
    make = four_bit if is_int4 else any_values
    return Attention([make(64, 96), make(32, 96), make(32, 96)]).to(torch.bfloat16)


@pytest.mark.parametrize("is_int4", [True, False])
@pytest.mark.parametrize("n_tokens", [1, MOST_INT4_TOKENS, MOST_INT4_TOKENS + 1, MOST_TOKENS])
@needs_onednn
def test_the_product_is_as_near_to_float32_as_bfloat16s(n_tokens: int, *, is_int4: bool):
    matrix = four_bit(64, 96) if is_int4 else any_values(64, 96)
    plain, own = linear(matrix), linear(matrix)
    assert pack_linear(own) == is_int4
    inputs = torch.randn(n_tokens, 1, 96).bfloat16()
    exact = inputs.float() @ matrix.T
    with torch.inference_mode():
        result, others = own(inputs), plain(inputs)
    assert result.shape == (n_tokens, 1, 64)
    assert result.dtype == torch.bfloat16
    assert (result - exact).norm() < 2 * (others - exact).norm()


def test_few_tokens_go_through_four_bits():
    plain, own = linear(four_bit(64, 96)), linear(four_bit(64, 96))
    pack_linear(own)
    inputs = torch.randn(1, 1, 96).bfloat16()
    with torch.inference_mode():
        assert not torch.equal(own(inputs), plain(inputs))


@pytest.mark.parametrize("n_tokens", [1, MOST_INT4_TOKENS + 1])
@pytest.mark.parametrize("is_int4", [True, False])
@needs_onednn
def test_layers_that_read_the_same_input_are_one_product(
    n_tokens: int, monkeypatch: pytest.MonkeyPatch, *, is_int4: bool
):
    plain, own = attention(is_int4=is_int4), attention(is_int4=is_int4)
    assert pack_linear(own) == (3 if is_int4 else 0)
    calls: list[int] = []
    product = packed.Matrices._product
    monkeypatch.setattr(
        packed.Matrices, "_product", lambda *args: calls.append(1) or product(*args)
    )
    with torch.inference_mode():
        for _ in range(2):
            source = torch.randn(n_tokens, 1, 96).bfloat16()
            for result, wanted in zip(own(source), plain(source), strict=True):
                assert (result - wanted).abs().max() < 0.02 * wanted.abs().max()
    assert len(calls) == 2


def test_an_input_that_changed_in_place_is_multiplied_anew():
    own = attention()
    pack_linear(own)
    source = torch.randn(1, 1, 96).bfloat16()
    with torch.inference_mode():
        before = own.q_proj(source)
        source.mul_(2)
        assert torch.equal(own.q_proj(source), 2 * before)


def test_more_tokens_and_gradients_take_the_bfloat16_matrix():
    matrix = four_bit(64, 96)
    plain, own = linear(matrix), linear(matrix)
    pack_linear(own)
    many, few = torch.randn(MOST_TOKENS + 1, 96).bfloat16(), torch.randn(1, 96).bfloat16()
    with torch.inference_mode():
        assert torch.equal(own(many), plain(many))
    few.requires_grad_()
    own(few).sum().backward()
    assert few.grad is not None


@pytest.mark.parametrize("n_tokens", [1, 8])
def test_a_changed_matrix_and_a_copy_of_it_count(n_tokens: int):
    own = linear(four_bit(64, 96))
    pack_linear(own)
    inputs = torch.randn(n_tokens, 96).bfloat16()
    with torch.inference_mode():
        assert own(inputs).any()
    for model in (own, copy.deepcopy(own)):
        next(model.parameters()).zero_()
        for each in (model, copy.deepcopy(model)):
            with torch.inference_mode():
                assert not each(inputs).any()


@pytest.mark.parametrize(
    "model",
    [
        linear(four_bit(64, 96), dtype=torch.float32),
        nn.Sequential(nn.Linear(96, 64).bfloat16()),
    ],
    ids=["float32", "a bias"],
)
def test_other_layers_are_left_alone(model: nn.Sequential):
    assert pack_linear(model) == 0
    assert not isinstance(model[0], PackedLinear)


@pytest.mark.parametrize("matrix", [four_bit(64, 96, n_levels=32), four_bit(24, 96)])
def test_matrices_of_other_groups_have_no_four_bits(matrix: torch.Tensor):
    assert pack_linear(linear(matrix)) == 0


def test_a_large_model_is_not_kept_twice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packed, "MOST_PARAMETERS", 64 * 96 - 1)
    assert pack_linear(linear(four_bit(64, 96))) == 0


def test_without_onednns_product_few_tokens_go_through_four_bits_and_others_as_ever(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(packed, "has_onednn", lambda: False)
    plain, own = linear(four_bit(64, 96)), linear(four_bit(64, 96))
    plain_other, other = linear(any_values(64, 96)), linear(any_values(64, 96))
    pack_linear(own)
    pack_linear(other)
    inputs = torch.randn(MOST_INT4_TOKENS + 1, 96).bfloat16()
    with torch.inference_mode():
        assert not torch.equal(own(inputs), plain(inputs))
        assert torch.equal(other(inputs), plain_other(inputs))


@needs_onednn
def test_a_rearranged_matrix_gives_the_same_product():
    matrix, rows = any_values(64, 96).bfloat16(), torch.randn(5, 96).bfloat16()
    start = torch.randn(5, 64).bfloat16()
    own, before = copy.deepcopy(Rearranged(matrix)), start.clone()
    wanted = rows.float() @ matrix.float().T
    assert torch.allclose(own.product(rows).float(), wanted, atol=0.02)
    assert torch.allclose(own.added(start, rows).float(), start + wanted, atol=0.03)
    assert torch.equal(start, before)
