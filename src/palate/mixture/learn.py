"""One update: several epochs of REBEL or PPO on sampled answers, with the controller alone.

Processes that work together share the pairs of every step and add up their gradients.

Source:
    methods mope 5.2, 5.3 and pitfalls 10: the old log-probabilities come from the same code as the
    new ones, so the ratio is one at the first step.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from palate.core.errors import InvalidInputError
from palate.mixture.ppo import advantages, clipped_loss, standardised, value_loss
from palate.mixture.rebel import rebel_loss, regularised_reward
from palate.mixture.settings import FitSettings, LossSettings
from palate.mixture.tensors import Answers, mixed_log_probs, outcome
from palate.models.processes import n_together, own_share, sum_gradients, summed

_BETAS = (0.9, 0.95)


@dataclass(frozen=True, eq=False)
class Fixed:
    """What stays as it was while the controller learns from the answers.

    Attributes:
        log_probs: `[answers, tokens]`, under the policy that wrote them.
        rewards: `[answers]`, with the KL term if it has a price.
        gains: `[answers, tokens]`, advantages; for PPO.
        returns: `[answers, tokens]`, what the values are to predict; for PPO.
    """

    log_probs: Float[Tensor, "answers tokens"]
    rewards: Float[Tensor, " answers"]
    gains: Float[Tensor, "answers tokens"]
    returns: Float[Tensor, "answers tokens"]


@dataclass(frozen=True)
class Learned:
    """What an update did.

    Attributes:
        first_loss: Of the first step.
        last_loss: Mean over the last epoch.
        kl_to_uniform: Sampled KL of the old policy to the uniform mixture, nats per answer.
        density_gap: Largest difference between an answer's log-probability as drawn and as
            recomputed, nats; more than 1e-3 is a fault.
    """

    first_loss: float
    last_loss: float
    kl_to_uniform: float
    density_gap: float


def new_optimizer(controller: nn.Module, settings: FitSettings) -> torch.optim.AdamW:
    """AdamW with one rate for the decoder's body and one for everything else.

    At a body rate of zero the whole trunk is frozen, and only the heads are left to learn.
    """
    if settings.body_rate == 0.0:
        for name, parameter in controller.named_parameters():
            parameter.requires_grad_(not name.startswith("trunk."))
        heads = [p for p in controller.parameters() if p.requires_grad]
        group = {"params": heads, "lr": settings.head_rate}
        return torch.optim.AdamW([group], betas=_BETAS, weight_decay=0.0)
    body = [p for name, p in controller.named_parameters() if name.startswith("trunk.decoder")]
    rest = [p for name, p in controller.named_parameters() if not name.startswith("trunk.decoder")]
    groups = [
        {"params": body, "lr": settings.body_rate},
        {"params": rest, "lr": settings.head_rate},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], betas=_BETAS, weight_decay=0.0)


def learn(
    controller: nn.Module,
    optimizer: torch.optim.Optimizer,
    answers: Answers,
    *,
    drawn: Float[Tensor, " fresh"],
    settings: FitSettings,
    generator: np.random.Generator,
) -> Learned:
    """Fit the controller to the answers; answers `2i` and `2i + 1` are a pair.

    Args:
        controller: Changed in place.
        optimizer: Of its parameters; rates are as set.
        answers: Pairs next to each other, both sides of one prompt and combination.
        drawn: Log-probabilities of the last so many answers as the engine drew them.
        settings: Loss, epochs, sizes.
        generator: Shuffles the pairs.

    Raises:
        InvalidInputError: several processes learn by PPO, whose loss is no mean over pairs, or a
            step has fewer pairs than there are processes.
    """
    if settings.loss.method == "ppo" and n_together() > 1:
        raise InvalidInputError(
            f"{n_together()} processes cannot share a step of PPO; use one process, or the loss "
            "rebel."
        )
    old = _fixed(controller, answers, settings.loss)
    uniform = mixed_log_probs(torch.zeros_like(answers.expert_log_probs), answers).sum(dim=1)
    losses: list[float] = []
    n_pairs = len(answers) // 2
    n_steps = -(-n_pairs // settings.batch_pairs)
    for _ in range(settings.n_epochs):
        order = generator.permutation(n_pairs)
        for pairs in np.array_split(order, n_steps):
            mine = pairs[own_share(len(pairs))]
            rows = np.stack([2 * mine, 2 * mine + 1], axis=1).reshape(-1)
            loss = _loss(controller, answers.select(rows), _rows(old, rows), settings.loss)
            loss = loss * (len(mine) / len(pairs))  # the step's loss is the mean over its pairs
            optimizer.zero_grad()
            loss.backward()
            sum_gradients(controller.parameters())
            nn.utils.clip_grad_norm_(controller.parameters(), settings.max_grad_norm)
            optimizer.step()
            losses.append(summed(loss.detach()).item())
    whole, uniform = old.log_probs.sum(dim=1)[-len(drawn) :], uniform[-len(drawn) :]
    return Learned(
        first_loss=losses[0],
        last_loss=float(np.mean(losses[-n_steps:])),
        kl_to_uniform=float((whole - uniform).mean()),
        density_gap=float((whole.cpu() - drawn).abs().max()),
    )


@torch.no_grad()
def _fixed(controller: nn.Module, answers: Answers, loss: LossSettings) -> Fixed:
    found = outcome(controller, answers)
    uniform = mixed_log_probs(torch.zeros_like(found.scores), answers)
    rewards = regularised_reward(
        answers.rewards,
        log_prob_old=found.log_probs.sum(dim=1),
        log_prob_uniform=uniform.sum(dim=1),
        price=loss.price,
    )
    token_rewards = -loss.price * (found.log_probs - uniform)
    last = answers.is_token.sum(dim=1, keepdim=True) - 1
    token_rewards.scatter_add_(1, last, answers.rewards.unsqueeze(1))
    gains = advantages(token_rewards, found.values, answers.is_token, smoothing=loss.smoothing)
    return Fixed(
        log_probs=found.log_probs,
        rewards=rewards,
        gains=standardised(gains, answers.is_token),
        returns=gains + found.values,
    )


def _rows(old: Fixed, rows: np.ndarray) -> Fixed:
    index = torch.as_tensor(rows, device=old.rewards.device)
    return Fixed(old.log_probs[index], old.rewards[index], old.gains[index], old.returns[index])


def _loss(controller: nn.Module, answers: Answers, old: Fixed, loss: LossSettings) -> Tensor:
    found = outcome(controller, answers)
    n_tokens = answers.is_token.shape[1]
    log_ratios = found.log_probs - old.log_probs[:, :n_tokens]
    if loss.method == "rebel":
        whole = log_ratios.sum(dim=1).view(-1, 2)
        return rebel_loss(whole, old.rewards.view(-1, 2), eta=loss.eta)
    mask = answers.is_token
    clipped = clipped_loss(log_ratios, old.gains[:, :n_tokens], mask, clip=loss.clip)
    values = value_loss(found.values, old.returns[:, :n_tokens], mask)
    return clipped + loss.value_share * values
