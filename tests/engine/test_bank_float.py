"""Experts below the unembedding in bfloat16: passes of few tokens add exact products."""

from pathlib import Path

import pytest
import torch

import palate.engine.bank as banks
from fakes import save_random_adapter
from palate.engine.bank import AdapterBank
from palate.models.load import Base, load_base

ROWS = [[0.5, -0.3, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, -1.0]]
LAYERS = (  # alone, and one of several that read the same input: views of one product
    "model.layers.0.mlp.down_proj",
    "model.layers.0.self_attn.v_proj",
)
SIBLINGS = {"model.layers.0.self_attn.v_proj": "model.layers.0.self_attn.q_proj"}
ROUNDING = 2.0**-8  # of a number in bfloat16, as a share of it


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Base:
    return load_base(base_folder, dtype="bfloat16")


@pytest.fixture(scope="module")
def folders(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("float")
    return {
        f"e{seed}": save_random_adapter(base_folder, folder / f"e{seed}", seed=seed)
        for seed in range(3)
    }


def states_of(base: Base, layer: str, *, n_tokens: int = 1) -> torch.Tensor:
    size = base.model.get_submodule(layer).in_features
    return torch.randn(len(ROWS), n_tokens, size).bfloat16()


def wanted_of(base: Base, bank: AdapterBank, layer: str, states: torch.Tensor) -> torch.Tensor:
    """The layer's outputs with the experts, in double precision after the base's own rounding."""
    stacked = bank._layers[layer]
    sizes = torch.tensor([rank for _, rank, _ in stacked.signature])
    scales = torch.tensor([scale for _, _, scale in stacked.signature], dtype=torch.float64)
    values = (torch.tensor(ROWS, dtype=torch.float64) * scales).repeat_interleave(sizes, dim=1)
    inner = (states.double() @ stacked.down.double().T) * values.unsqueeze(1)
    plain = base.model.get_submodule(layer)(states).double()
    return plain + inner @ stacked.up.double()


def outputs_of(base: Base, bank: AdapterBank, layer: str, states: torch.Tensor) -> torch.Tensor:
    """The layer's outputs with the experts, after its sibling has read the same input."""
    with bank.applied(ROWS):
        if layer in SIBLINGS:
            base.model.get_submodule(SIBLINGS[layer])(states)
        return base.model.get_submodule(layer)(states)


@pytest.mark.parametrize("layer", LAYERS)
@torch.inference_mode()
def test_a_pass_of_few_tokens_rounds_once(base: Base, folders: dict[str, Path], layer: str) -> None:
    bank = AdapterBank.load(base, folders)
    states = states_of(base, layer)
    found, wanted = outputs_of(base, bank, layer, states), wanted_of(base, bank, layer, states)
    if layer in SIBLINGS:  # and left the sibling's alone
        other = SIBLINGS[layer]
        both = outputs_of(base, bank, other, states), wanted_of(base, bank, other, states)
        assert bool(((both[0] - both[1]).abs() <= ROUNDING * both[1].abs() + 1e-6).all())
    bank.close()
    assert found.dtype == torch.bfloat16
    assert bool(((found.double() - wanted).abs() <= ROUNDING * wanted.abs() + 1e-6).all())


@torch.inference_mode()
def test_a_pass_of_many_tokens_keeps_the_bases_precision(
    base: Base, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, layer = AdapterBank.load(base, folders), LAYERS[0]
    states = states_of(base, layer, n_tokens=7)
    wanted = wanted_of(base, bank, layer, states)
    few = outputs_of(base, bank, layer, states)
    monkeypatch.setattr(banks, "MOST_NUMBERS", 0)
    many = outputs_of(base, bank, layer, states)
    bank.close()
    errors = [float((one.double() - wanted).norm()) for one in (few, many)]
    assert 0 < errors[0] < errors[1] < 0.02 * float(wanted.norm())


def test_with_gradients_outputs_are_not_changed_in_place(
    base: Base, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, kept = LAYERS[0], list[torch.Tensor]()
    module = base.model.get_submodule(layer)
    before = module.register_forward_hook(lambda _module, _args, output: kept.append(output))
    bank = AdapterBank.load(base, folders)
    states = states_of(base, layer)
    plain = module(states).detach().clone()
    with bank.applied(ROWS):
        found = module(states.requires_grad_())
    assert torch.equal(kept[-1].detach(), plain)
    monkeypatch.setattr(banks, "MOST_NUMBERS", 0)
    with bank.applied(ROWS):
        assert torch.equal(module(states), found)  # the same sum, wherever the limit is
    found.float().sum().backward()
    before.remove()
    bank.close()
    assert states.grad is not None
    assert float(states.grad.abs().sum()) > 0


def test_large_banks_and_float32_have_no_copies(
    base: Base, base_folder: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = AdapterBank.load(load_base(base_folder), folders)
    monkeypatch.setattr(banks, "MOST_NUMBERS", 16)
    large = AdapterBank.load(base, folders)
    large.close()
    exact.close()
    assert all(one.floats is None for bank in (exact, large) for one in bank._layers.values())
