"""Reward folders on disk: `card.json` beside the files of its trunk."""

from pathlib import Path

from palate.core.errors import FormatError, InvalidInputError
from palate.rewards.card import RewardCard, load_card
from palate.rewards.light import load_light
from palate.rewards.reward import LearnedReward, RawModel


def load_reward(folder: Path, *, device: str = "cpu") -> LearnedReward:
    """The reward written by `LearnedReward.save`; the same texts score the same bits.

    Args:
        folder: Where it is.
        device: As torch names devices; a light reward needs none.

    Raises:
        InvalidInputError: there is no such folder, or a file is missing.
        FormatError: a file is of another kind or version, or the model is not the card's.
    """
    if not folder.is_dir():
        raise InvalidInputError(f"The reward folder {str(folder)!r} does not exist.")
    card = load_card(folder)
    model = _load_model(folder, card=card, device=device)
    if model.fingerprint != card.model_hash:
        raise FormatError(
            f"The model in {str(folder)!r} has hash {model.fingerprint[:12]}, but its card is of "
            f"{card.model_hash[:12]}; the folder was changed after it was written."
        )
    return LearnedReward(model, card)


def _load_model(folder: Path, *, card: RewardCard, device: str) -> RawModel:
    if card.trunk == "light":
        return load_light(folder)
    # torch and transformers take seconds to import, and a light reward needs neither
    from palate.rewards.classifier import load_transformer

    return load_transformer(folder, device=device)
