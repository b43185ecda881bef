"""Losses against numbers from paper and pencil."""

import math

import pytest
import torch

from palate.training.pair_trainer import dpo_loss, rebel_loss


def test_dpo_of_an_untrained_adapter_is_log_two():
    assert float(dpo_loss(torch.zeros(5), beta=0.3)) == pytest.approx(math.log(2), abs=1e-7)


def test_dpo_equals_the_formula():
    # beta 0.5, gaps 2 and -4: -log sigmoid(1) and -log sigmoid(-2)
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2
    assert float(dpo_loss(torch.tensor([2.0, -4.0]), beta=0.5)) == pytest.approx(expected, abs=1e-6)


def test_rebel_of_an_untrained_adapter_with_tied_rewards_is_zero():
    assert float(rebel_loss(torch.zeros(4), torch.zeros(4), beta=0.1)) == 0.0


def test_rebel_equals_the_formula_and_its_gradient():
    gaps = torch.tensor([3.0, -1.0], requires_grad=True)
    loss = rebel_loss(gaps, torch.tensor([0.5, 0.2]), beta=0.1)
    # (0.3 - 0.5)^2 = 0.04 and (-0.1 - 0.2)^2 = 0.09
    assert loss.item() == pytest.approx(0.065, abs=1e-7)
    loss.backward()
    # 2 * 0.1 * residual / 2 pairs
    assert gaps.grad.tolist() == pytest.approx([-0.02, -0.03], abs=1e-7)


def test_rebel_does_not_care_which_answer_is_first():
    gaps, rewards = torch.tensor([1.5, -0.7]), torch.tensor([0.4, 0.1])
    one = rebel_loss(gaps, rewards, beta=0.2)
    other = rebel_loss(-gaps, -rewards, beta=0.2)
    assert torch.equal(one, other)


def test_both_losses_have_the_same_optimum():
    """Rewards 0.2 and 0.9, beta 0.1: the best gap is -7 nats; DPO at gain 10 sees odds of -7."""
    gap = torch.tensor([-7.0], requires_grad=True)
    rebel = rebel_loss(gap, torch.tensor([0.2 - 0.9]), beta=0.1)
    assert rebel.item() == pytest.approx(0.0, abs=1e-12)
    gain, win = 10.0, 1 / (1 + math.exp(7.0))
    expected = win * dpo_loss(gap, beta=0.1 * gain) + (1 - win) * dpo_loss(-gap, beta=0.1 * gain)
    expected.backward()
    assert gap.grad.tolist() == pytest.approx([0.0], abs=1e-6)
