"""From pairs to a learned reward: fit a trunk, measure it on held-out pairs, write its card."""

import numpy as np

from palate.rewards.card import RewardCard, data_of, statistics_of, versions_of
from palate.rewards.held_out import held_out_of
from palate.rewards.light import LightSettings, fit_light
from palate.rewards.pairs import PairSet
from palate.rewards.reward import LearnedReward, RawModel

_PACKAGES = {
    "light": ("scipy", "scikit-learn", "safetensors"),
    "transformer": ("torch", "transformers", "trl", "safetensors"),
}


def fit_light_reward(
    train: PairSet,
    *,
    validation: PairSet,
    settings: LightSettings | None = None,
    seed: int = 0,
) -> LearnedReward:
    """A reward of the light trunk, measured on the validation pairs; not calibrated yet.

    Args:
        train: Pairs to fit on; every choice of settings is made on them.
        validation: Pairs that are only measured on.
        settings: Of the light trunk.
        seed: Of everything random.

    Raises:
        InvalidInputError: too few pairs or groups, or a pair in both sets.
    """
    options = settings or LightSettings()
    model = fit_light(train, settings=options, seed=seed)
    resolved: dict[str, object] = {**options.model_dump(mode="json"), "ridge": model.ridge}
    return with_card(model, train=train, validation=validation, settings=resolved, seed=seed)


def with_card(
    model: RawModel,
    *,
    train: PairSet,
    validation: PairSet,
    settings: dict[str, object],
    seed: int,
) -> LearnedReward:
    """The fitted model, measured on the validation pairs and given its card.

    Raises:
        InvalidInputError: a pair is in both sets, or a score is not finite.
    """
    chosen = model.raw(validation.prompts, validation.chosen)
    rejected = model.raw(validation.prompts, validation.rejected)
    card = RewardCard(
        objective=train.objective,
        trunk=model.trunk,
        held_out=held_out_of(chosen - rejected, train=train, validation=validation, seed=seed),
        raw=statistics_of(np.concatenate([chosen, rejected])),
        train=data_of(train),
        validation=data_of(validation),
        settings=settings,
        seed=seed,
        model_hash=model.fingerprint,
        versions=versions_of(_PACKAGES[model.trunk]),
    )
    return LearnedReward(model, card)
