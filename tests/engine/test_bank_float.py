"""Experts below the unembedding in bfloat16: passes of few tokens add exact products."""

from pathlib import Path

import pytest
import torch

import palate.engine.bank as banks
from fakes import save_random_adapter
from palate.engine.bank import AdapterBank
from palate.models.load import Base, load_base

ROWS = [[0.5, -0.3, 1.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, -1.0]]
LAYER = "model.layers.0.mlp.down_proj"
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


def added(base: Base, bank: AdapterBank, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of the layer with the experts, and what they should be, in double precision."""
    module, layer = base.model.get_submodule(LAYER), bank._layers[LAYER]
    plain = module(states).double()
    with bank.applied(ROWS):
        found = module(states)
    sizes = torch.tensor([rank for _, rank, _ in layer.signature])
    scales = torch.tensor([scale for _, _, scale in layer.signature], dtype=torch.float64)
    values = (torch.tensor(ROWS, dtype=torch.float64) * scales).repeat_interleave(sizes, dim=1)
    inner = (states.double() @ layer.down.double().T) * values.unsqueeze(1)
    return found, plain + inner @ layer.up.double()


@torch.inference_mode()
def test_a_pass_of_few_tokens_rounds_once(base: Base, folders: dict[str, Path]) -> None:
    bank = AdapterBank.load(base, folders)
    states = torch.randn(len(ROWS), 1, base.model.config.intermediate_size).bfloat16()
    found, wanted = added(base, bank, states)
    bank.close()
    assert found.dtype == torch.bfloat16
    assert bool(((found.double() - wanted).abs() <= ROUNDING * wanted.abs() + 1e-6).all())


@torch.inference_mode()
def test_a_pass_of_many_tokens_keeps_the_bases_precision(
    base: Base, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = AdapterBank.load(base, folders)
    states = torch.randn(len(ROWS), 7, base.model.config.intermediate_size).bfloat16()
    few, wanted = added(base, bank, states)
    monkeypatch.setattr(banks, "MOST_NUMBERS", 0)
    many, _ = added(base, bank, states)
    bank.close()
    errors = [float((one.double() - wanted).norm()) for one in (few, many)]
    assert 0 < errors[0] < errors[1] < 0.02 * float(wanted.norm())


def test_gradients_pass_and_leave_the_outputs_alone(base: Base, folders: dict[str, Path]) -> None:
    bank = AdapterBank.load(base, folders)
    states = torch.randn(len(ROWS), 1, base.model.config.intermediate_size).bfloat16()
    found, wanted = added(base, bank, states.requires_grad_())
    found.float().sum().backward()
    bank.close()
    assert states.grad is not None
    assert float(states.grad.abs().sum()) > 0
    assert float((found.double() - wanted).detach().norm()) < 0.02 * float(wanted.detach().norm())


def test_large_banks_and_float32_have_no_copies(
    base: Base, base_folder: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = AdapterBank.load(load_base(base_folder), folders)
    monkeypatch.setattr(banks, "MOST_NUMBERS", 16)
    large = AdapterBank.load(base, folders)
    large.close()
    assert all(one.floats is None for bank in (exact, large) for one in bank._layers.values())
