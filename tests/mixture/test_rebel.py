"""The REBEL loss against the exact case, and its laws."""

from typing import Any

import numpy as np
import pytest
import torch

from palate.mixture.pooling import token_log_probs
from palate.mixture.rebel import rebel_loss, regularised_reward

SIDES = ("y", "y_prime")


def log_prob(side: dict[str, Any], scores: torch.Tensor, active: list[int]) -> torch.Tensor:
    probs = torch.tensor(side["expert_token_probs"], dtype=torch.float64)
    mask = torch.tensor(side["mask"], dtype=torch.float64)
    is_active = torch.tensor(active).bool().expand_as(probs)
    return (token_log_probs(scores, probs.log(), is_active) * mask).sum()


def scores_of(case: dict[str, Any], key: str) -> list[torch.Tensor]:
    return [
        torch.tensor(pair[side][key], dtype=torch.float64, requires_grad=True)
        for pair in case["pairs"]
        for side in SIDES
    ]


def log_probs(case: dict[str, Any], scores: list[torch.Tensor]) -> torch.Tensor:
    places = [(pair[side], pair["active"]) for pair in case["pairs"] for side in SIDES]
    rows = [log_prob(side, z, active) for (side, active), z in zip(places, scores, strict=True)]
    return torch.stack(rows).view(-1, 2)


def rewards_of(case: dict[str, Any], key: str = "reward") -> torch.Tensor:
    return torch.tensor(
        [[pair[side][key] for side in SIDES] for pair in case["pairs"]], dtype=torch.float64
    )


def listed(case: dict[str, Any], key: str) -> np.ndarray:
    return np.array([[pair[side][key] for side in SIDES] for pair in case["pairs"]])


def test_log_probabilities_loss_and_gradients_meet_the_exact_case(
    mope_cases: dict[str, Any],
) -> None:
    case = mope_cases["rebel"]
    new = scores_of(case, "z_new")
    now, old = log_probs(case, new), log_probs(case, scores_of(case, "z_old")).detach()
    assert np.allclose(now.detach(), listed(case, "logp_new"), atol=1e-10)
    assert np.allclose(old, listed(case, "logp_old"), atol=1e-10)
    loss = rebel_loss(now - old, rewards_of(case), eta=case["eta"])
    assert loss.item() == pytest.approx(case["loss"], abs=1e-10)
    assert loss.item() / case["eta"] ** 2 == pytest.approx(case["loss_paper_scale"], abs=1e-10)
    loss.backward()
    expected = [pair[s]["grad_loss_wrt_z_new"] for pair in case["pairs"] for s in SIDES]
    for scores, gradient in zip(new, expected, strict=True):
        assert np.allclose(scores.grad, gradient, atol=1e-10)


def test_the_regularised_reward_and_its_loss_meet_the_exact_case(
    mope_cases: dict[str, Any],
) -> None:
    case = mope_cases["rebel"]
    zero = [torch.zeros_like(z) for z in scores_of(case, "z_new")]
    uniform, old = log_probs(case, zero), log_probs(case, scores_of(case, "z_old"))
    assert np.allclose(uniform.detach(), listed(case, "logp_uniform"), atol=1e-10)
    rewards = regularised_reward(
        rewards_of(case), log_prob_old=old, log_prob_uniform=uniform, price=case["beta"]
    )
    assert np.allclose(rewards.detach(), listed(case, "regularised_reward"), atol=1e-10)
    now = log_probs(case, scores_of(case, "z_new"))
    loss = rebel_loss(now - old, rewards, eta=case["eta"])
    assert loss.item() == pytest.approx(case["loss_regularised"], abs=1e-10)


def test_at_the_old_policy_the_loss_is_the_reward_gaps_alone(mope_cases: dict[str, Any]) -> None:
    case = mope_cases["rebel"]
    loss = rebel_loss(torch.zeros(3, 2).double(), rewards_of(case), eta=case["eta"])
    assert loss.item() == pytest.approx(case["loss_at_old"], abs=1e-10)


def test_at_the_start_with_tied_rewards_the_loss_is_zero() -> None:
    tied = torch.tensor([[0.4, 0.4], [0.9, 0.9]])
    assert rebel_loss(torch.zeros(2, 2), tied, eta=3.0).item() == 0.0


def test_swapping_the_two_answers_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    ratios, rewards = torch.randn(5, 2, generator=generator), torch.rand(5, 2, generator=generator)
    there = rebel_loss(ratios.flip(1), rewards.flip(1), eta=2.0)
    assert torch.equal(rebel_loss(ratios, rewards, eta=2.0), there)


def test_zero_loss_is_the_old_policy_tilted_by_the_rewards() -> None:
    old = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    rewards = torch.tensor([0.1, 0.9, 0.4], dtype=torch.float64)
    new = old * (2.0 * rewards).exp()
    ratios = (new / new.sum() / old).log()
    pairs = torch.tensor([[0, 1], [0, 2], [1, 2]])
    assert rebel_loss(ratios[pairs], rewards[pairs], eta=2.0).item() == pytest.approx(0, abs=1e-24)
