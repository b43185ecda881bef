"""Sampled answers as padded tensors, which can be selected, joined and stored."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.files import write_bytes_atomic
from palate.mixture.rollout import Sample


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
