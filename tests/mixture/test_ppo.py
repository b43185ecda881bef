"""PPO's parts against sums by hand."""

import pytest
import torch

from palate.mixture.ppo import advantages, clipped_loss, standardised, value_loss


def test_advantages_with_smoothing_one_are_reward_to_go_minus_value() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0, 9.0]])
    values = torch.tensor([[0.2, 0.5, 0.4, 7.0]])
    mask = torch.tensor([[True, True, True, False]])
    found = advantages(rewards, values, mask, smoothing=1.0)
    assert torch.allclose(found, torch.tensor([[0.8, 0.5, 0.6, 0.0]]))


def test_advantages_with_smoothing_zero_look_one_token_ahead() -> None:
    rewards, values = torch.tensor([[0.1, 0.0, 1.0]]), torch.tensor([[0.2, 0.5, 0.4]])
    found = advantages(rewards, values, torch.ones(1, 3).bool(), smoothing=0.0, discount=0.5)
    expected = [0.1 + 0.5 * 0.5 - 0.2, 0.5 * 0.4 - 0.5, 1.0 - 0.4]
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
