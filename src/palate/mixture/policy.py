"""The mixture as a policy: its log-probabilities of sampled answers, now and before an update."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from palate.mixture.answers import Answers
from palate.mixture.losses import advantages, regularised_reward, standardised
from palate.mixture.pooling import log_linear_log_probs, shares_of, token_log_probs
from palate.mixture.settings import LossSettings
from palate.mixture.shapes import PerToken


@dataclass(frozen=True, eq=False)
class Outcome:
    """Log-probabilities of answers under the mixture, and PPO's values."""

    scores: Float[Tensor, "answers tokens experts"]
    log_probs: PerToken  # zero for padding
    values: PerToken  # before each token; zero for padding


@dataclass(frozen=True, eq=False)
class OldPolicy:
    """Numbers that stay fixed while the controller learns from the answers."""

    log_probs: PerToken  # under the policy before the update
    uniform: Float[Tensor, " answers"]  # log-probabilities under the uniform mixture
    rewards: Float[Tensor, " answers"]  # with the KL term if it has a price
    gains: PerToken  # PPO's advantages
    returns: PerToken  # the targets of PPO's values

    def select(self, rows: np.ndarray, *, n_tokens: int) -> "OldPolicy":
        """The answers of these rows, numbers `[rows]`, cut to so many tokens."""
        index = torch.as_tensor(rows, device=self.rewards.device)
        parts = [getattr(self, part.name)[index] for part in fields(self)]
        return OldPolicy(*(part[:, :n_tokens] if part.ndim > 1 else part for part in parts))


def outcome(controller: nn.Module, answers: Answers) -> Outcome:
    """One teacher-forced pass of the controller; the experts are not run."""
    every, values = controller(answers.ids, answers.mask, answers.strengths)
    index = answers.places.unsqueeze(-1).expand(-1, -1, every.shape[-1])
    scores = every.gather(1, index)
    log_probs = mixed_log_probs(scores, answers)
    own_values = torch.where(answers.is_token, values.gather(1, answers.places), 0.0)
    return Outcome(scores, log_probs, own_values)


def mixed_log_probs(scores: Float[Tensor, "answers tokens experts"], answers: Answers) -> PerToken:
    """Log-probability of each token under the mixture with these scores; zero for padding."""
    active = (answers.strengths > 0).unsqueeze(1).expand_as(scores)
    if answers.tables is None or answers.wanted is None:
        mixed = token_log_probs(scores, answers.expert_log_probs, active)
    else:
        index = answers.wanted.unsqueeze(1).expand(-1, scores.shape[1], -1)
        mixed = log_linear_log_probs(
            shares_of(scores, active).gather(2, index),
            answers.expert_log_probs.gather(2, index),
            answers.tables,
        )
    return torch.where(answers.is_token, mixed, 0.0)


@torch.no_grad()
def old_policy(controller: nn.Module, answers: Answers, loss: LossSettings) -> OldPolicy:
    """The controller's policy before the update, with the targets of the loss.

    The log-probabilities come from the same code as the new ones, so ratios start at one.
    """
    now = outcome(controller, answers)
    uniform = mixed_log_probs(torch.zeros_like(now.scores), answers)
    rewards = regularised_reward(
        answers.rewards,
        log_prob_old=now.log_probs.sum(dim=1),
        log_prob_uniform=uniform.sum(dim=1),
        price=loss.price,
    )
    token_rewards = -loss.price * (now.log_probs - uniform)
    last = answers.is_token.sum(dim=1, keepdim=True) - 1
    token_rewards.scatter_add_(1, last, answers.rewards.unsqueeze(1))
    gains = advantages(token_rewards, now.values, answers.is_token, smoothing=loss.smoothing)
    return OldPolicy(
        log_probs=now.log_probs,
        uniform=uniform.sum(dim=1),
        rewards=rewards,
        gains=standardised(gains, answers.is_token),
        returns=gains + now.values,
    )
