"""Sampled answers as padded tensors, and their log-probabilities now and before an update."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save
from torch import Tensor, nn

from palate.core.errors import InvalidInputError
from palate.core.files import write_bytes_atomic
from palate.mixture.losses import PerToken, advantages, regularised_reward, standardised
from palate.mixture.pooling import log_linear_log_probs, shares_of, token_log_probs
from palate.mixture.rollout import Sample
from palate.mixture.settings import LossSettings


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of a controlled mixture, padded on the right."""

    ids: Int[Tensor, "answers seq"]  # the controller's context and the answer but its last token
    mask: Int[Tensor, "answers seq"]  # one where `ids` has a token
    places: Int[Tensor, "answers tokens"]  # where in `ids` the scores for each token stand
    is_token: Bool[Tensor, "answers tokens"]  # false for padding
    strengths: Float[Tensor, "answers experts"]  # zero for experts that are not wanted
    expert_log_probs: Float[Tensor, "answers tokens experts"]  # `log p_i(y_t)`
    rewards: Float[Tensor, " answers"]
    wanted: Int[Tensor, "answers wanted"] | None = None  # experts, if the pool is log-linear
    tables: Float[Tensor, "answers tokens wanted vocab"] | None = None  # log p of the wanted ones

    @classmethod
    def of(cls, samples: Sequence[Sample], *, device: torch.device | None = None) -> "Answers":
        """The samples, in order, on the controller's device.

        Raises:
            InvalidInputError: the pool is log-linear and answers want different numbers of experts.
        """
        texts = [(*s.context, *s.completion.tokens[:-1]) for s in samples]
        lengths = [len(s.completion.tokens) for s in samples]
        ids = torch.zeros(len(samples), max(map(len, texts)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        places = torch.zeros(len(samples), max(lengths), dtype=torch.long)
        is_token = torch.zeros_like(places, dtype=torch.bool)
        log_probs = torch.zeros(*places.shape, len(samples[0].request.strengths))
        for row, (one, text, n_tokens) in enumerate(zip(samples, texts, lengths, strict=True)):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1
            first = len(one.context) - 1
            places[row, :n_tokens] = torch.arange(first, first + n_tokens)
            is_token[row, :n_tokens] = True
            log_probs[row, :n_tokens] = torch.from_numpy(one.expert_log_probs).float()
        strengths = torch.tensor([s.request.strengths for s in samples])
        rewards = torch.tensor([s.reward for s in samples])
        parts = (ids, mask, places, is_token, strengths, log_probs, rewards)
        tables = _tables(samples, n_tokens=max(lengths))
        return cls(*(part.to(device) for part in (*parts, *tables)))

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> "Answers":
        """All parts, in order, padded alike."""
        columns: dict[str, Tensor] = {}
        for one in fields(cls):
            tensors = [getattr(part, one.name) for part in parts]
            if tensors[0] is not None:
                width = max(t.shape[1] if t.ndim > 1 else 0 for t in tensors)
                columns[one.name] = torch.cat([_widened(t, width) for t in tensors])
        return cls(**columns)

    def save(self, path: Path) -> None:
        """Write every tensor into one safetensors file."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        write_bytes_atomic(
            path, save({k: t.contiguous().cpu() for k, t in named.items() if t is not None})
        )

    @classmethod
    def load(cls, path: Path, *, device: torch.device | None = None) -> "Answers":
        """The answers that `save` wrote."""
        return cls(**{name: tensor.to(device) for name, tensor in load_file(path).items()})

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.rewards)

    def select(self, rows: np.ndarray) -> "Answers":
        """The answers of these rows, numbers `[rows]`, cut to the longest of them."""
        index = torch.as_tensor(rows, device=self.ids.device)
        n_seq = int(self.mask[index].sum(dim=1).max())
        n_tokens = int(self.is_token[index].sum(dim=1).max())
        return Answers(
            self.ids[index, :n_seq],
            self.mask[index, :n_seq],
            self.places[index, :n_tokens],
            self.is_token[index, :n_tokens],
            self.strengths[index],
            self.expert_log_probs[index, :n_tokens],
            self.rewards[index],
            None if self.wanted is None else self.wanted[index],
            None if self.tables is None else self.tables[index, :n_tokens],
        )


def _widened(tensor: Tensor, width: int) -> Tensor:
    """Zeros on the right of the second dimension, up to the width."""
    if tensor.ndim < 2 or tensor.shape[1] == width:
        return tensor
    missing = tensor.new_zeros(len(tensor), width - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, missing], dim=1)


def _tables(samples: Sequence[Sample], *, n_tokens: int) -> tuple[Tensor, ...]:
    """Wanted experts and their tables, padded; nothing unless the pool is log-linear."""
    first = samples[0].tables
    if first is None:
        return ()
    wanted = [one.request.wanted for one in samples]
    if len({len(row) for row in wanted}) != 1:
        raise InvalidInputError(
            "Under a log-linear pool all combinations must want equally many experts; train others "
            "in runs of their own."
        )
    tables = torch.zeros(len(samples), n_tokens, *first.shape[1:])
    for row, one in enumerate(samples):
        if one.tables is not None:
            tables[row, : len(one.tables)] = torch.from_numpy(one.tables)
    return torch.tensor(wanted), tables


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
