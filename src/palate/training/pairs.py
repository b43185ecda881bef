"""Pairs of answers as token ids, ready for training.

From rollouts: pairs of answers to one prompt, with the gap of the anchor's reward. From users:
chosen and
rejected answers of the objectives that the anchor speaks of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.seeds import generator_for
from palate.core.types import PreferencePair
from palate.models.chat import encode_answer, encode_prompt, format_messages
from palate.models.load import Base
from palate.training.anchors import Anchor
from palate.training.rollouts import Rollout

Tokens = tuple[int, ...]
_SORTED_BATCHES = 8  # sorted by length together: few enough that batches stay mixed


@dataclass(frozen=True)
class Sequences:
    """Answers in context, as the base reads them.

    Attributes:
        prompts: Token ids of each prompt, with its beginning token.
        answers: Token ids of each answer, with its end token when it ended by itself.
    """

    prompts: tuple[Tokens, ...]
    answers: tuple[Tokens, ...]

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.answers)

    def lengths(self) -> Int[ndarray, " answers"]:
        """`[answers]`: tokens of prompt and answer together."""
        pairs = zip(self.prompts, self.answers, strict=True)
        return np.array([len(prompt) + len(answer) for prompt, answer in pairs])


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two answers each, by index into `Sequences`; the first is the chosen one for DPO.

    Attributes:
        first: `[pairs]`, index of the first answer.
        second: `[pairs]`, index of the second answer to the same prompt.
        reward_gaps: `[pairs]`, the anchor's reward of the first minus the second, reward units; NaN
            where only users' labels are known.
    """

    first: ndarray
    second: ndarray
    reward_gaps: Float[ndarray, " pairs"]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.first)


def encode_rollouts(base: Base, rollouts: Sequence[Rollout]) -> Sequences:
    """The rollouts as the base read and wrote them."""
    prompts = {
        row.prompt: tuple(encode_prompt(base, format_messages(base, row.prompt)))
        for row in rollouts
    }
    return Sequences(
        tuple(prompts[row.prompt] for row in rollouts), tuple(row.tokens for row in rollouts)
    )


def pairs_of_rollouts(
    rollouts: Sequence[Rollout], anchor: Anchor, *, n_per_prompt: int, seed: int
) -> Pairs:
    """Pairs of different answers to one prompt, the same for every anchor but for their order.

    Args:
        rollouts: Several per prompt, with rewards.
        anchor: Gives the scalar reward.
        n_per_prompt: At most this many pairs of each prompt, drawn without replacement.
        seed: Of the draw.

    Raises:
        InvalidInputError: no prompt has two different answers, or a reward is not in [0, 1].
    """
    rewards = anchor.scalarise(np.array([row.rewards for row in rollouts]))
    of_prompt: dict[str, list[int]] = {}
    for index, row in enumerate(rollouts):
        of_prompt.setdefault(row.prompt, []).append(index)
    kept: list[tuple[int, int]] = []
    for prompt, indices in of_prompt.items():
        every = [
            pair
            for pair in combinations(indices, 2)
            if rollouts[pair[0]].tokens != rollouts[pair[1]].tokens
        ]
        order = generator_for(seed, "pairs", prompt).permutation(len(every))[:n_per_prompt]
        kept += [every[index] for index in sorted(order)]
    if not kept:
        raise InvalidInputError(
            f"The {len(rollouts)} rollouts hold no two different answers to one prompt; sample "
            "more completions per prompt."
        )
    first, second = np.array(kept).T
    return Pairs(first, second, rewards[first] - rewards[second])


def label_pairs(pairs: Pairs, *, gain: float, generator: np.random.Generator) -> Pairs:
    """The pairs with the answer first that a noisy judge prefers.

    The first answer wins with probability `sigmoid(gain * reward gap)`.
    """
    probability = 1.0 / (1.0 + np.exp(-gain * pairs.reward_gaps))
    is_kept = generator.random(len(pairs)) < probability
    return Pairs(
        np.where(is_kept, pairs.first, pairs.second),
        np.where(is_kept, pairs.second, pairs.first),
        np.where(is_kept, pairs.reward_gaps, -pairs.reward_gaps),
    )


def training_order(
    lengths: Int[ndarray, " pairs"], *, n_batches: int, batch: int, generator: np.random.Generator
) -> Int[ndarray, " steps"]:
    """The pairs in the order of training: batches of like length, the batches themselves shuffled.

    Padding to the longest of a batch is most of the work when lengths differ, so every stretch of
    eight batches is sorted by length before it is cut. Pairs are visited in whole passes.

    Args:
        lengths: `[pairs]`, tokens of the longer of the two sequences.
        n_batches: How many batches.
        batch: Pairs in each.
        generator: Source of chance.

    Returns:
        `[n_batches * batch]`, indices of pairs.
    """
    n_needed = n_batches * batch
    n_passes = -(-n_needed // len(lengths))
    visited = np.concatenate([generator.permutation(len(lengths)) for _ in range(n_passes)])
    stretch = _SORTED_BATCHES * batch
    batches: list[ndarray] = []
    for start in range(0, n_needed, stretch):
        part = visited[start : min(start + stretch, n_needed)]
        part = part[np.argsort(lengths[part], kind="stable")].reshape(-1, batch)
        batches += [part[index] for index in generator.permutation(len(part))]
    return np.concatenate(batches)


def pair_lengths(sequences: Sequences, pairs: Pairs) -> Int[ndarray, " pairs"]:
    """`[pairs]`: tokens of the longer of the two, prompt included."""
    sizes = sequences.lengths()
    return np.maximum(sizes[pairs.first], sizes[pairs.second])


def encode_human_pairs(
    base: Base,
    pairs: Mapping[str, Sequence[PreferencePair]],
    anchor: Anchor,
    *,
    n_pairs: int,
    max_tokens: int,
    seed: int,
) -> tuple[Sequences, Pairs]:
    """Pairs of the objectives that the anchor speaks of, in proportion to its absolute direction.

    Pairs of an objective that the anchor wants less of are turned round. A prompt too long for
    `max_tokens` loses its beginning, an answer its end.

    Args:
        base: Gives tokenizer and template.
        pairs: By objective.
        anchor: Says which objectives, and how much.
        n_pairs: How many to draw, in whole passes through an objective's pairs.
        max_tokens: Most tokens of prompt and answer together.
        seed: Of the draw.

    Raises:
        InvalidInputError: an objective of the anchor has no pairs.
    """
    generator = generator_for(seed, "human pairs")
    prompts: list[Tokens] = []
    answers: list[Tokens] = []
    for objective, share in zip(anchor.objectives, anchor.direction, strict=True):
        if share == 0.0:
            continue
        rows = require_pairs(pairs.get(objective, ()), what=f"objective {objective!r}")
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


def require_pairs(pairs: Sequence[PreferencePair], *, what: str) -> Sequence[PreferencePair]:
    """The pairs, if there are any.

    Raises:
        InvalidInputError: there are none.
    """
    if not pairs:
        raise InvalidInputError(f"The {what} has no preference pairs; give at least one.")
    return pairs


def _cut(base: Base, prompt: str, answer: str, *, max_tokens: int) -> tuple[Tokens, Tokens]:
    text = format_messages(base, prompt)
    before = encode_prompt(base, text)
    after = encode_answer(base, text, answer, is_ended=True)[: max_tokens - 1]
    return tuple(before[-(max_tokens - len(after)) :]), tuple(after)
