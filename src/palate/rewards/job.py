"""A reward from pairs, in memory or from files to files, and texts scored with it.

A trunk is fitted, measured on held-out pairs, and its card written.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palate.core.errors import InvalidInputError
from palate.core.progress import progress_of
from palate.core.settings import Settings
from palate.rewards.card import RewardCard, data_of, statistics_of, versions_of
from palate.rewards.held_out import HeldOut, fit_length, held_out_of, require_disjoint
from palate.rewards.light import fit_light
from palate.rewards.pairs import PairSet, read_pairs
from palate.rewards.reward import LearnedReward, RawModel, calibrate, load_reward
from palate.rewards.rows import has_pairs, read_completions
from palate.rewards.scale import ScaleKind
from palate.rewards.settings import EmbeddingSettings, LightSettings, TrunkSettings, trunk_settings

_PACKAGES = {
    "light": ("scipy", "scikit-learn", "safetensors"),
    "embedding": ("torch", "transformers", "scikit-learn", "safetensors"),
    "transformer": ("torch", "transformers", "trl", "safetensors"),
}


def fit_reward(
    train: PairSet,
    *,
    validation: PairSet,
    settings: TrunkSettings | None = None,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> LearnedReward:
    """A reward, measured on the validation pairs; not calibrated yet.

    Settings, by default a light trunk's, are selected on the training pairs. `on_step` hears steps
    done and in all while a transformer is trained, or texts embedded and texts in all.

    Raises:
        InvalidInputError: there are too few pairs or groups, a pair is in both sets, or the trunk
            is not there.
        FormatError: what is there is no model that can be given a reward head.
    """
    options = settings or LightSettings()
    require_disjoint(train, validation)
    selected: dict[str, float] = {}
    model: RawModel
    if isinstance(options, LightSettings):
        model = fit_light(train, settings=options, seed=seed)
        selected = {"ridge": model.ridge}
    elif isinstance(options, EmbeddingSettings):
        from palate.rewards.embedding import fit_embedding  # as below

        model = fit_embedding(train, settings=options, seed=seed, on_step=on_step)
        selected = {"ridge": model.ridge}
    else:
        # torch and transformers take seconds to import, and a light reward needs neither
        from palate.rewards.transformer import fit_transformer

        model = fit_transformer(train, settings=options, seed=seed, on_step=on_step)
    length_coefficients = fit_length(train)
    chosen = model.raw(validation.prompts, validation.chosen)
    rejected = model.raw(validation.prompts, validation.rejected)
    card = RewardCard(
        objective=train.objective,
        trunk=model.trunk,
        held_out=held_out_of(
            chosen - rejected,
            validation=validation,
            length_coefficients=length_coefficients,
            seed=seed,
        ),
        length_coefficients=length_coefficients,
        raw=statistics_of(np.concatenate([chosen, rejected])),
        train=data_of(train),
        validation=data_of(validation),
        settings=options.model_dump(mode="json"),
        selected=selected,
        seed=seed,
        model_hash=model.fingerprint,
        versions=versions_of(_PACKAGES[model.trunk]),
    )
    return LearnedReward(model, card)


class RewardJob(Settings):
    """One reward to be trained."""

    pairs: Path  # pairs to fit on
    validation: Path  # pairs to measure on
    out: Path  # new folder for the reward
    trunk: str = "light"  # as `palate.rewards.settings.trunk_settings` reads it
    objective: str | None = None  # its name; by default the one the pairs give
    is_swapped: bool = False  # exchange chosen and rejected; needs `objective`
    group_by: str | None = None  # column whose equal values belong together; by default the prompt
    calibrate: Path | None = None  # answers of the base model, on which the scale is fitted
    scale: ScaleKind = "logistic"  # kind of scale
    overrides: tuple[str, ...] = ()  # `key=value` for the settings of the trunk
    seed: int = 0  # random seed of the fit


def train_reward(job: RewardJob) -> LearnedReward:
    """Train, measure, calibrate where answers are given, and write the folder, whole or not at all.

    Raises:
        InvalidInputError: the folder exists, a file is missing or wrong, or a setting is.
        FormatError: the trunk cannot be given a reward head.
    """
    if job.out.exists():
        raise InvalidInputError(f"The folder {str(job.out)!r} exists; give a new one.")
    train, validation = (
        read_pairs(path, objective=job.objective, group_by=job.group_by, is_swapped=job.is_swapped)
        for path in (job.pairs, job.validation)
    )
    if train.objective != validation.objective:
        raise InvalidInputError(
            f"The training pairs are of {train.objective!r} and the validation pairs of "
            f"{validation.objective!r}; give pairs of one objective, or name it for both."
        )
    settings = trunk_settings(job.trunk, overrides=job.overrides)
    rollouts = read_completions(job.calibrate) if job.calibrate is not None else None
    with progress_of(f"train {train.objective}") as on_step:
        reward = fit_reward(
            train, validation=validation, settings=settings, seed=job.seed, on_step=on_step
        )
    if rollouts is not None:
        prompts, answers = rollouts
        reward = calibrate(reward, prompts=prompts, answers=answers, kind=job.scale)
    reward.save(job.out)
    return reward


@dataclass(frozen=True)
class Scored:
    """A file of texts scored by a reward."""

    objective: str  # name of the reward's objective
    scale: str  # kind of scale, or `raw`: log-odds, comparable within this reward only
    scores: list[Any]  # one per answer; for pairs one `(chosen, rejected)` each, raw
    held_out: HeldOut | None  # for pairs, how they were ranked; otherwise `None`

    def to_json(self) -> dict[str, Any]:
        """The scores as plain data, with their statistics."""
        content: dict[str, Any] = {"objective": self.objective, "scale": self.scale}
        if self.held_out is not None:
            content |= self.held_out.model_dump(mode="json")
        else:
            content |= statistics_of(np.array(self.scores)).model_dump(mode="json")
        return {**content, "scores": self.scores}


def score_file(
    folder: Path, file: Path, *, is_raw: bool = False, group_by: str | None = None
) -> Scored:
    """Score the answers of a file, or rank its pairs.

    Ranking needs no scale; a number in [0, 1] does. The file is JSONL with `prompt` and
    `completion`, or with `prompt`, `chosen` and `rejected`, which tie where they are equal. With
    `is_raw` scores are log-odds, which need no scale; `group_by` is for pairs.

    Raises:
        InvalidInputError: a file is missing or wrong, or the reward is not calibrated.
        FormatError: the folder holds something else.
    """
    reward = load_reward(folder)
    if has_pairs(file):
        pairs = read_pairs(file, objective=reward.objective, group_by=group_by, has_ties=True)
        return _ranked(reward, pairs)
    prompts, answers = read_completions(file)
    scores = reward.raw(prompts, answers) if is_raw else reward.score(prompts, answers)
    scale = reward.card.calibration
    kind = "raw" if is_raw or scale is None else scale.kind
    return Scored(reward.objective, kind, scores.tolist(), held_out=None)


def _ranked(reward: LearnedReward, pairs: PairSet) -> Scored:
    chosen = reward.raw(pairs.prompts, pairs.chosen)
    rejected = reward.raw(pairs.prompts, pairs.rejected)
    held_out = held_out_of(
        chosen - rejected,
        validation=pairs,
        length_coefficients=reward.card.length_coefficients,
        seed=reward.card.seed,
    )
    return Scored(reward.objective, "raw", np.stack([chosen, rejected], axis=1).tolist(), held_out)
