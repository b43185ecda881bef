"""REBEL against the exact case and its laws; PPO's parts against sums by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from palate.mixture.losses import (
    advantages,
    clipped_loss,
    rebel_loss,
    regularised_reward,
    standardised,
    value_loss,
)
from palate.mixture.pooling import token_log_probs

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


def test_advantages_with_smoothing_one_are_reward_to_go_minus_value() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0, 9.0]])
    values = torch.tensor([[0.2, 0.5, 0.4, 7.0]])
    mask = torch.tensor([[True, True, True, False]])
    found = advantages(rewards, values, mask, smoothing=1.0)
    assert torch.allclose(found, torch.tensor([[0.8, 0.5, 0.6, 0.0]]))


def test_advantages_with_smoothing_zero_look_one_token_ahead() -> None:
    rewards, values = torch.tensor([[0.1, 0.0, 1.0]]), torch.tensor([[0.2, 0.5, 0.4]])
    found = advantages(rewards, values, torch.ones(1, 3).bool(), smoothing=0.0)
    expected = [0.1 + 0.5 - 0.2, 0.4 - 0.5, 1.0 - 0.4]
    assert torch.allclose(found, torch.tensor([expected]))


def test_advantages_sum_the_smoothed_errors() -> None:
    rewards, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.3, 0.6]])
    found = advantages(rewards, values, torch.ones(1, 2).bool(), smoothing=0.9)
    last, first = 1.0 - 0.6, 0.6 - 0.3
    assert torch.allclose(found, torch.tensor([[first + 0.9 * last, last]]))


def test_the_clipped_loss_stops_rewarding_ratios_outside_the_band() -> None:
    log_ratios = torch.tensor([[1.5, 0.5, 1.0]]).log().requires_grad_()
    gains = torch.tensor([[1.0, -1.0, 2.0]])
    loss = clipped_loss(log_ratios, gains, torch.ones(1, 3).bool(), clip=0.2)
    assert loss.item() == pytest.approx(-(1.2 - 0.8 + 2.0) / 3)
    loss.backward()
    assert torch.allclose(log_ratios.grad, torch.tensor([[0.0, 0.0, -2.0 / 3]]))


def test_the_clipped_loss_still_corrects_ratios_that_went_the_wrong_way() -> None:
    log_ratios = torch.tensor([[0.5, 1.5]]).log()
    gains = torch.tensor([[1.0, -1.0]])
    loss = clipped_loss(log_ratios, gains, torch.ones(1, 2).bool(), clip=0.2)
    assert loss.item() == pytest.approx(-(0.5 - 1.5) / 2)


def test_padding_does_not_count() -> None:
    mask = torch.tensor([[True, False]])
    values = torch.tensor([[1.0, 100.0]])
    assert value_loss(values, torch.zeros(1, 2), mask).item() == 0.5
    assert clipped_loss(values, torch.ones(1, 2), mask, clip=10.0).item() == pytest.approx(
        -2.71828, abs=1e-4
    )
    wide = standardised(torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[True, True, False]]))
    assert wide.tolist() == [[-1.0, 1.0, 0.0]]
