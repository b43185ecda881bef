"""Experts on the unembedding in bfloat16: rearranged factors give the dense sum."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch

from fakes import save_random_adapter
from palate.engine.bank import AdapterBank
from palate.models.load import Base, load_base
from palate.models.packed import MOST_TOKENS, has_onednn

pytestmark = pytest.mark.skipif(not has_onednn(), reason="no bfloat16 in oneDNN here")
N_EXPERTS = 3


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Base:
    return load_base(base_folder, dtype="bfloat16")


@pytest.fixture(scope="module")
def bank(base: Base, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterBank:
    folder = tmp_path_factory.mktemp("heads")
    folders = {
        f"head{seed}": save_random_adapter(
            base_folder, folder / f"head{seed}", seed=seed, targets=["lm_head"]
        )
        for seed in range(N_EXPERTS)
    }
    return AdapterBank.load(base, folders)


def dense(bank: AdapterBank, states: torch.Tensor, head: torch.nn.Linear, row: list[float]):
    """Logits in float32 of `W + sum c_k s_k B_k A_k`, from hidden states `[seq, hidden]`."""
    (layer,) = bank._layers.values()
    sizes = [rank for _, rank, _ in layer.signature]
    factors = torch.tensor([row[k] * scale for k, _, scale in layer.signature])
    by_rank = factors.repeat_interleave(torch.tensor(sizes))
    matrix = head.weight.float() + layer.up.float().T @ (by_rank[:, None] * layer.down.float())
    return states.float() @ matrix.T


@pytest.mark.parametrize(
    "rows",
    [
        [[0.5, -0.3, 1.0]],
        [[0.0, 2.0, 0.0]],
        [[0.0, 1.0, 0.0], [0.0, 0.5, 0.0]],
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.0, 0.0, 0.0], [0.2, 0.4, 0.4]],
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
    ],
)
@pytest.mark.parametrize("n_tokens", [1, MOST_TOKENS + 1])
@torch.inference_mode()
def test_logits_are_the_dense_models(
    base: Base, bank: AdapterBank, rows: list[list[float]], n_tokens: int
) -> None:
    head = base.model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    states = torch.randn(len(rows), n_tokens, head.in_features).bfloat16()
    with bank.applied(rows):
        result = head(states)
    for own, one, row in zip(result, states, rows, strict=True):
        wanted = dense(bank, one, head, row)
        assert (own - wanted).norm() < 0.01 * wanted.norm()


@torch.inference_mode()
def test_rows_that_share_a_sequence_have_their_own_logits(base: Base, bank: AdapterBank) -> None:
    head = base.model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    state = torch.randn(1, 1, head.in_features).bfloat16()
    plain = head(state).clone()
    with bank.applied(torch.eye(N_EXPERTS), sequences=[0] * N_EXPERTS):
        result = head(state)
    for own, row in zip(result, torch.eye(N_EXPERTS).tolist(), strict=True):
        wanted = dense(bank, state[0], head, row)
        assert (own - wanted).norm() < 0.01 * wanted.norm()
    assert torch.equal(head(state), plain)


def test_gradients_pass_through_experts(base: Base, bank: AdapterBank) -> None:
    head = base.model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    states = torch.randn(1, 1, head.in_features).bfloat16().requires_grad_()
    with bank.applied([[1.0, 1.0, 1.0]]):
        head(states).float().sum().backward()
    wanted = dense(bank, torch.eye(head.in_features), head, [1.0] * N_EXPERTS).sum(dim=1)
    assert states.grad is not None
    assert (states.grad[0, 0] - wanted).norm() < 0.02 * wanted.norm()


def test_a_model_under_the_bank_can_be_copied(base: Base, bank: AdapterBank) -> None:
    tokens = torch.tensor([[5, 6, 7]])
    with torch.inference_mode(), bank.applied([[1.0, 0.5, 0.0]]):
        wanted = base.model(tokens).logits
    copy = deepcopy(base.model)
    assert wanted.shape == copy(tokens).logits.shape
