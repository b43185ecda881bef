"""Rewards as objects: a learned reward with its card, and several of them as one vector.

The score of a learned reward is its raw score on its stored scale. Without a scale it is refused.
Where its card says so, the score is multiplied by the share of words in whole sentences: learned
rewards read surface or meaning, and policies are else paid for breaking their text.
On disk it is a folder with `card.json` beside the files of its trunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from jaxtyping import Float

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import hash_value, write_folder_atomic
from palate.core.protocols import Reward
from palate.rewards.card import RewardCard, Trunk, load_card, save_card, statistics_of
from palate.rewards.light import load_light
from palate.rewards.scale import ScaleKind, fit_scale, require_rewards
from palate.rewards.sentences import is_on_topic, unbroken_share
from palate.rewards.texts import require_equally_many


class RawModel(Protocol):
    """A trunk with its head: texts to log-odds."""

    trunk: ClassVar[Trunk]

    @property
    def fingerprint(self) -> str:
        """Hash of everything a score depends on."""
        ...

    def raw(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Scores in log-odds, `[texts]`; higher is better."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files of the model into the folder."""
        ...


@dataclass(frozen=True, eq=False)
class LearnedReward:
    """A reward model with its card."""

    model: RawModel
    card: RewardCard

    @property
    def objective(self) -> str:
        """Name of what it measures."""
        return self.card.objective

    @property
    def fingerprint(self) -> str:
        """Hash of everything a score depends on: the model and the scale."""
        scale = self.card.calibration
        facts = [self.model.fingerprint, scale.model_dump() if scale else None]
        n_guards = 2 if self.card.on_topic else int(self.card.whole_sentences)  # unset, as ever
        guards = (self.card.whole_sentences, self.card.on_topic)[:n_guards]
        return hash_value([*facts, *guards])

    def raw(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Raw scores in log-odds, `[texts]`; comparable within this reward only."""
        require_equally_many(prompts, answers)
        return self.model.raw(prompts, answers)

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Rewards in [0, 1], `[texts]`; InvalidInputError without scale or of an infinite score."""
        scale = self.card.calibration
        if scale is None:
            raise InvalidInputError(
                f"The reward {self.objective!r} is not calibrated, so it has no scale in [0, 1]; "
                "calibrate it on answers of the base model first."
            )
        scores = scale.apply(self.raw(prompts, answers))
        if self.card.whole_sentences:
            scores = scores * np.array([unbroken_share(answer) for answer in answers])
        if self.card.on_topic:
            scores = scores * np.array([*map(is_on_topic, prompts, answers)])
        return require_rewards(scores, objective=self.objective)

    def save(self, folder: Path) -> None:
        """Write the reward folder, whole or not at all; an old one is replaced."""

        def fill(temporary: Path) -> None:
            self.model.save(temporary)
            save_card(self.card, temporary)

        write_folder_atomic(folder, fill)


@dataclass(frozen=True)
class RewardVector:
    """Several objectives scored at once: at least one reward, each of another objective."""

    rewards: tuple[Reward, ...]

    def __post_init__(self) -> None:
        """Refuse an empty vector and objectives that occur twice."""
        names = self.objectives
        if not names:
            raise InvalidInputError("A reward vector needs at least one reward.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidInputError(
                f"The objective {twice[0]!r} has several rewards; give one reward for each."
            )

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names, in the order of the columns."""
        return tuple(reward.objective for reward in self.rewards)

    def score(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Float[np.ndarray, "texts objectives"]:
        """Rewards in [0, 1], `[texts, objectives]`.

        Raises:
            InvalidInputError: not one answer for each prompt, a reward that is not calibrated, not
                finite or outside [0, 1] by more than 1e-6, or not one number per text.
        """
        require_equally_many(prompts, answers)
        columns = [self._column(reward, prompts, answers) for reward in self.rewards]
        return np.stack(columns, axis=1)

    def _column(
        self, reward: Reward, prompts: Sequence[str], answers: Sequence[str]
    ) -> Float[np.ndarray, " texts"]:
        scores = require_rewards(reward.score(prompts, answers), objective=reward.objective)
        if scores.shape != (len(answers),):
            raise InvalidInputError(
                f"The reward {reward.objective!r} gave scores of shape {scores.shape} for "
                f"{len(answers)} texts; give one number per text."
            )
        return scores


def load_reward(folder: Path, *, device: str = "cpu") -> LearnedReward:
    """The reward written by `LearnedReward.save`; the same texts score the same bits.

    Raises:
        InvalidInputError: there is no such folder, or a file is missing.
        FormatError: a file is of another kind or version, or the model is not the card's.
    """
    if not folder.is_dir():
        raise InvalidInputError(f"The reward folder {str(folder)!r} does not exist.")
    card = load_card(folder)
    model: RawModel
    if card.trunk == "light":
        model = load_light(folder)
    elif card.trunk == "embedding":
        from palate.rewards.embedding import load_embedding  # as below

        model = load_embedding(folder, device=device)
    else:
        # torch and transformers take seconds to import, and a light reward needs neither
        from palate.rewards.classifier import load_transformer

        model = load_transformer(folder, device=device)
    if model.fingerprint != card.model_hash:
        raise FormatError(
            f"The model in {str(folder)!r} has hash {model.fingerprint[:12]}, but its card is of "
            f"{card.model_hash[:12]}; the folder was changed after it was written."
        )
    return LearnedReward(model, card)


def calibrate(
    reward: LearnedReward,
    *,
    prompts: Sequence[str],
    answers: Sequence[str],
    kind: ScaleKind = "logistic",
) -> LearnedReward:
    """The reward on a scale fitted on these answers of the frozen base model.

    Raises:
        InvalidInputError: the reward is calibrated already, or the answers do not carry a scale.
    """
    if reward.card.calibration is not None:
        raise InvalidInputError(
            f"The reward {reward.objective!r} is calibrated already; a scale is fitted once, so "
            "that rewards stay comparable. Train the reward anew to give it another."
        )
    raw = reward.raw(prompts, answers)
    update = {"calibration": fit_scale(raw, kind=kind), "calibration_raw": statistics_of(raw)}
    return replace(reward, card=reward.card.model_copy(update=update))
