"""MoPE: frozen experts answer together, mixed token by token by a small trained controller.

    z_t       = PCM(x, preference, y_<t)                      a score per expert               (1)
    alpha_t   = softmax of z_t over the wanted experts        per-token coefficients           (2)
    pi(v)     = sum_i alpha_ti p_i(v)                         next-token distribution          (3)
    R(y)      = sum_i w_i sigmoid(r_i(y) - r_i(y_ref))        average win probability          (4)
    log pi(y) = sum_t logsumexp_i(log alpha_ti + log p_i(y_t))                                 (5)
    loss      = mean ([log pi(y)/pi_old(y) - log pi(y')/pi_old(y')] - eta (R(y) - R(y')))^2    (6)

The PCM (1) is in `controller.py`, (2) and (5) are in `pooling.py`, (4) is in `reward.py`, REBEL (6)
and PPO are in `losses.py`, and decoding by (1) to (3) is in `decode.py`. This file trains the PCM.

Source: MoPE, arXiv 2407.04181; REBEL, arXiv 2404.16767; mope.md 4 and 5.

Deviations from the paper (the modules above list theirs): rates, sizes and the price of KL are
unknown, ours are in `settings.py`; a run may learn from all answers so far (`is_replayed`).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from palate.core.errors import InvalidInputError
from palate.core.files import hash_value
from palate.core.seeds import derive_seed, generator_for
from palate.mixture.answers import Answers, OldPolicy, old_policy, outcome
from palate.mixture.checkpoint import TrainingFolder
from palate.mixture.controller import decay_rates, new_optimizer
from palate.mixture.losses import clipped_loss, rebel_loss, value_loss
from palate.mixture.monitors import summarise
from palate.mixture.rollout import Task, sample
from palate.mixture.settings import FitSettings, LossSettings
from palate.models.processes import n_together, own_share, sum_gradients, summed


@dataclass(frozen=True)
class UpdateStats:
    """Numbers of one update."""

    first_loss: float  # of the first step
    last_loss: float  # mean over the last epoch
    kl_to_uniform: float  # sampled KL of the old policy to the uniform mixture, nats per answer
    density_gap: float  # largest |log pi as sampled - as recomputed|, nats; above 1e-3 is a fault


def fit(
    controller: nn.Module,
    task: Task,
    settings: FitSettings,
    *,
    folder: Path,
    on_update: Callable[[int, dict[str, Any]], None] = lambda _update, _row: None,
) -> list[dict[str, Any]]:
    """The curves of training the controller in place; resumes from the folder's checkpoint.

    The task's engine uses the controller. `on_update` is called after each update with its number,
    from one, and its row.

    Raises:
        FormatError: the folder holds a checkpoint of another run.
        InvalidInputError: several processes train by PPO, whose loss is no mean over pairs.
    """
    if settings.loss.method == "ppo" and n_together() > 1:
        raise InvalidInputError(
            f"{n_together()} processes cannot share a step of PPO; use one process, or the loss "
            "rebel."
        )
    optimizer = new_optimizer(controller, settings)
    key = [settings.model_dump(), task.prompts, task.combinations, task.wording.instructions]
    run = TrainingFolder(folder, controller, optimizer, key=hash_value(key))
    for update in range(run.n_done, settings.n_updates):
        decay_rates(optimizer, remaining=1.0 - update / settings.n_updates)
        generator = generator_for(settings.seed, "update", update)
        controller.eval()
        samples = sample(  # y from (1) to (3) and R from (4); the experts run only here
            task,
            task.draw_pairs(settings.n_pairs, generator=generator),
            sampling=settings.sampling,
            seed=derive_seed(settings.seed, "answers", update),
        )
        answers = Answers.of(samples, device=next(controller.parameters()).device)
        if settings.loss.is_replayed:
            answers = run.with_earlier(answers, update=update)
        sampled = torch.tensor([one.log_prob for one in samples])
        stats = _learn(controller, optimizer, answers, sampled, settings, generator)
        row = {"update": update + 1, **summarise(samples).to_json(), **asdict(stats)}
        is_last = update + 1 == settings.n_updates
        run.record(row, is_due=is_last or (update + 1) % settings.checkpoint_every == 0)
        on_update(update + 1, row)
    return run.curves


def _learn(
    controller: nn.Module,
    optimizer: torch.optim.Optimizer,
    answers: Answers,
    sampled: Tensor,
    settings: FitSettings,
    generator: np.random.Generator,
) -> UpdateStats:
    """A few epochs on pairs of answers; `sampled` are the last answers' own log-probabilities."""
    old = old_policy(controller, answers, settings.loss)
    losses: list[float] = []
    n_pairs = len(answers) // 2
    n_steps = -(-n_pairs // settings.batch_pairs)
    for _ in range(settings.n_epochs):
        for pairs in np.array_split(generator.permutation(n_pairs), n_steps):
            own = pairs[own_share(len(pairs))]
            rows = np.stack([2 * own, 2 * own + 1], axis=1).reshape(-1)
            loss = _loss(controller, answers.select(rows), old, rows, settings.loss)
            loss = loss * (len(own) / len(pairs))  # the step's loss is the mean over its pairs
            optimizer.zero_grad()
            loss.backward()
            sum_gradients(controller.parameters())
            nn.utils.clip_grad_norm_(controller.parameters(), settings.max_grad_norm)
            optimizer.step()
            losses.append(summed(loss.detach()).item())
    fresh = old.log_probs.sum(dim=1)[-len(sampled) :]
    return UpdateStats(
        first_loss=losses[0],
        last_loss=float(np.mean(losses[-n_steps:])),
        kl_to_uniform=float((fresh - old.uniform[-len(sampled) :]).mean()),
        density_gap=float((fresh.cpu() - sampled).abs().max()),
    )


def _loss(
    controller: nn.Module, answers: Answers, old: OldPolicy, rows: np.ndarray, loss: LossSettings
) -> Tensor:
    mask = answers.is_token
    old = old.select(rows, n_tokens=mask.shape[1])
    now = outcome(controller, answers)  # (5)
    log_ratios = now.log_probs - old.log_probs
    if loss.method == "rebel":
        pairs = log_ratios.sum(dim=1).view(-1, 2)
        return rebel_loss(pairs, old.rewards.view(-1, 2), eta=loss.eta)  # (6)
    clipped = clipped_loss(log_ratios, old.gains, mask, clip=loss.clip)
    return clipped + loss.value_share * value_loss(now.values, old.returns, mask)
