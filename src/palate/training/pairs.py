"""Pairs of answers as token ids, ready for training, and answers' log-probabilities under the base.

From rollouts: pairs of answers to one prompt, with the gap of the anchor's reward. From users:
chosen and rejected answers of the objectives that the anchor names.

Reference log-probabilities are computed once and stored. They come from the same lines as those in
training, so an untrained adapter has log-ratios of zero. Finished batches are appended to a file
named by the hash of all that determines them; an interrupted pass goes on with the next batch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.files import append_jsonl, hash_value, read_jsonl, write_jsonl
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.core.types import PreferencePair
from palate.models.chat import encode_answer, encode_prompt, format_messages
from palate.models.load import Base
from palate.rewards.texts import messages_of
from palate.training.anchors import Anchor
from palate.training.pair_trainer import completion_log_probs
from palate.training.rollouts import Rollout

Tokens = tuple[int, ...]
_SORTED_BATCHES = 8  # sorted by length together: few enough that batches stay mixed


@dataclass(frozen=True)
class Sequences:
    """Token ids of answers in context."""

    prompts: tuple[Tokens, ...]  # each with its beginning token
    answers: tuple[Tokens, ...]  # each with its end token when it ended by itself

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.answers)

    def __add__(self, other: "Sequences") -> "Sequences":
        """These answers, then the other ones."""
        return Sequences(self.prompts + other.prompts, self.answers + other.answers)

    def lengths(self) -> Int[np.ndarray, " answers"]:
        """Tokens of prompt and answer together."""
        pairs = zip(self.prompts, self.answers, strict=True)
        return np.array([len(prompt) + len(answer) for prompt, answer in pairs])


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two answers to one prompt each; the first is the chosen one for DPO."""

    first: Int[np.ndarray, " pairs"]  # index into `Sequences`
    second: Int[np.ndarray, " pairs"]
    reward_gaps: Float[np.ndarray, " pairs"]  # of the anchor, first minus second; NaN if unknown

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.first)

    def lengths(self, sequences: Sequences) -> Int[np.ndarray, " pairs"]:
        """Tokens of the longer of the two, prompt included."""
        sizes = sequences.lengths()
        return np.maximum(sizes[self.first], sizes[self.second])


def encode_rollouts(base: Base, rollouts: Sequence[Rollout]) -> Sequences:
    """The rollouts' token ids."""
    prompts = {
        row.prompt: tuple(encode_prompt(base, format_messages(base, messages_of(row.prompt))))
        for row in rollouts
    }
    return Sequences(
        tuple(prompts[row.prompt] for row in rollouts), tuple(row.tokens for row in rollouts)
    )


def padded(
    sequences: Sequences, rows: Int[np.ndarray, " rows"]
) -> tuple[Int[Tensor, "rows seq"], Int[Tensor, "rows seq"], Int[Tensor, "rows seq"]]:
    """`[rows, seq]` each: token ids, which are no padding, and which are the answer's."""
    width = max(len(sequences.prompts[row]) + len(sequences.answers[row]) for row in rows.tolist())
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask, is_answer = torch.zeros_like(ids), torch.zeros_like(ids)
    for place, row in enumerate(rows.tolist()):
        prompt, answer = sequences.prompts[row], sequences.answers[row]
        end = len(prompt) + len(answer)
        ids[place, :end] = torch.tensor([*prompt, *answer])
        mask[place, :end] = 1
        is_answer[place, len(prompt) : end] = 1
    return ids, mask, is_answer


def pairs_of_rollouts(
    rollouts: Sequence[Rollout],
    anchor: Anchor,
    *,
    n_per_prompt: int,
    seed: int,
    is_widest: bool = False,
) -> Pairs:
    """Pairs of different answers to one prompt; the anchor gives the reward.

    At most so many of each prompt: sampled without replacement, the same for every anchor but for
    their order, or those whose rewards lie farthest apart.

    Raises:
        InvalidInputError: no prompt has two different answers, or a reward is not in [0, 1].
    """
    rewards = anchor.scalarise(np.array([row.rewards for row in rollouts]))
    of_prompt: dict[str, list[int]] = {}
    for index, row in enumerate(rollouts):
        of_prompt.setdefault(row.prompt, []).append(index)
    places: list[tuple[int, int]] = []
    for prompt, indices in of_prompt.items():
        every = [
            pair
            for pair in combinations(indices, 2)
            if rollouts[pair[0]].tokens != rollouts[pair[1]].tokens
        ]
        if is_widest:
            every.sort(key=lambda pair: -abs(rewards[pair[0]] - rewards[pair[1]]))  # stable
            places += every[:n_per_prompt]
        else:
            order = generator_for(seed, "pairs", prompt).permutation(len(every))[:n_per_prompt]
            places += [every[index] for index in sorted(order)]
    if not places:
        raise InvalidInputError(
            f"The {len(rollouts)} rollouts hold no two different answers to one prompt; sample "
            "more completions per prompt."
        )
    first, second = np.array(places).T
    return Pairs(first, second, rewards[first] - rewards[second])


def label_pairs(pairs: Pairs, *, gain: float, generator: np.random.Generator) -> Pairs:
    """The pairs with the answer first that a noisy judge prefers.

    The first answer wins with probability `sigmoid(gain * reward gap)`.
    """
    probability = 1.0 / (1.0 + np.exp(-gain * pairs.reward_gaps))
    is_first = generator.random(len(pairs)) < probability
    return Pairs(
        np.where(is_first, pairs.first, pairs.second),
        np.where(is_first, pairs.second, pairs.first),
        np.where(is_first, pairs.reward_gaps, -pairs.reward_gaps),
    )


def training_order(
    lengths: Int[np.ndarray, " pairs"],
    *,
    n_batches: int,
    batch: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, " steps"]:
    """The pairs in the order of training: batches of like length, the batches themselves shuffled.

    Padding to the longest of a batch is most of the work when lengths differ, so every stretch of
    eight batches is sorted by length before it is cut. Pairs are visited in whole passes. Lengths
    are tokens of the longer of the two sequences. Returns `[n_batches * batch]` indices.
    """
    n_needed = n_batches * batch
    n_passes = -(-n_needed // len(lengths))
    visited = np.concatenate([generator.permutation(len(lengths)) for _ in range(n_passes)])
    stretch = _SORTED_BATCHES * batch
    batches: list[np.ndarray] = []
    for start in range(0, n_needed, stretch):
        part = visited[start : min(start + stretch, n_needed)]
        part = part[np.argsort(lengths[part], kind="stable")].reshape(-1, batch)
        batches += [part[index] for index in generator.permutation(len(part))]
    return np.concatenate(batches)


def encode_human_pairs(
    base: Base,
    pairs: Mapping[str, Sequence[PreferencePair]],
    anchor: Anchor,
    *,
    n_pairs: int,
    max_tokens: int,
    seed: int,
) -> tuple[Sequences, Pairs]:
    """Pairs of the objectives that the anchor names, in proportion to its absolute direction.

    Pairs of an objective that the anchor wants less of are turned round. A prompt too long for
    `max_tokens` loses its beginning, an answer its end. There are `n_pairs`, in whole passes
    through an objective's pairs.

    Raises:
        InvalidInputError: an objective of the anchor has no pairs.
    """
    generator = generator_for(seed, "human pairs")
    prompts: list[Tokens] = []
    answers: list[Tokens] = []
    for objective, share in zip(anchor.objectives, anchor.direction, strict=True):
        if share == 0.0:
            continue
        rows = pairs.get(objective, ())
        if not rows:
            raise InvalidInputError(
                f"The objective {objective!r} has no preference pairs; give at least one."
            )
        n_rows = max(1, round(abs(share) * n_pairs))
        passes = [generator.permutation(len(rows)) for _ in range(-(-n_rows // len(rows)))]
        for index in np.concatenate(passes)[:n_rows]:
            row = rows[index]
            both = (row.chosen, row.rejected) if share > 0 else (row.rejected, row.chosen)
            for answer in both:
                prompt, tokens = _cut(base, row.prompt, answer, max_tokens=max_tokens)
                prompts.append(prompt)
                answers.append(tokens)
    first = np.arange(0, len(answers), 2)
    return Sequences(tuple(prompts), tuple(answers)), Pairs(
        first, first + 1, np.full(len(first), np.nan)
    )


def _cut(base: Base, prompt: str, answer: str, *, max_tokens: int) -> tuple[Tokens, Tokens]:
    text = format_messages(base, messages_of(prompt))  # real turns, as in serving
    before = encode_prompt(base, text)
    after = encode_answer(base, text, answer, is_ended=True)[: max_tokens - 1]
    return tuple(before[-(max_tokens - len(after)) :]), tuple(after)


_BATCH = 32  # answers in one pass


def reference_log_probs(
    base: Base, sequences: Sequences, *, folder: Path | None = None
) -> Float[np.ndarray, " answers"]:
    """`[answers]`: log-probability of each under the base, nats; stored by batch in a folder."""
    if folder is None:
        return sequence_log_probs(base.model, sequences)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"reference-{data_key(base, sequences)}.jsonl"
    batches: list[list[float]] = []
    if path.is_file():
        rows = read_jsonl(path, what="stored log-probabilities", is_torn_end_dropped=True)
        batches = [row["log_probs"] for row in rows]
        write_jsonl(path, rows)  # without a line that was cut off
    with progress_of("reference log-probabilities, answers") as report:

        def on_batch(log_probs: list[float], done: int) -> None:
            append_jsonl(path, [{"log_probs": log_probs}])
            report(done, len(sequences))

        return sequence_log_probs(base.model, sequences, known=batches, on_batch=on_batch)


def sequence_log_probs(
    model: Any,
    sequences: Sequences,
    *,
    known: Iterable[list[float]] = (),
    on_batch: Callable[[list[float], int], None] | None = None,
) -> Float[np.ndarray, " answers"]:
    """`[answers]`: log-probability of each answer under the model, nats.

    `known` are the first batches' values, from an earlier call; `on_batch` hears a new batch's
    values and the number of answers done.
    """
    order = np.argsort(sequences.lengths(), kind="stable")  # like lengths need little padding
    values = [value for batch in known for value in batch]
    for start in range(len(values), len(order), _BATCH):
        ids, mask, is_answer = padded(sequences, order[start : start + _BATCH])
        with torch.inference_mode():
            log_probs = completion_log_probs(
                model,
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                completion_mask=is_answer.to(model.device),
            )
        batch = log_probs.double().tolist()
        values += batch
        if on_batch is not None:
            on_batch(batch, len(values))
    result = np.zeros(len(order))
    result[order] = values
    return result


def data_key(base: Base, sequences: Sequences) -> str:
    """Short hash of the base, its type and the answers."""
    dtype = str(base.model.dtype)
    return hash_value([base.fingerprint, dtype, sequences.prompts, sequences.answers])[:16]
