"""From pairs to a learned reward: fit a trunk, measure it on held-out pairs, write its card."""

from collections.abc import Callable

import numpy as np

from palate.rewards.card import RewardCard, data_of, statistics_of, versions_of
from palate.rewards.held_out import fit_length, held_out_of, require_disjoint
from palate.rewards.light import fit_light
from palate.rewards.pairs import PairSet
from palate.rewards.reward import LearnedReward, RawModel
from palate.rewards.settings import EmbeddingSettings, LightSettings, TrunkSettings

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
