import pytest

from palate.core.errors import InvalidInputError
from palate.rewards.settings import (
    EmbeddingSettings,
    LightSettings,
    TransformerSettings,
    trunk_settings,
)


def test_light_is_a_word_and_everything_else_is_a_model() -> None:
    assert trunk_settings("light", overrides=["least_texts=3"]) == LightSettings(least_texts=3)
    assert trunk_settings("models/12", overrides=["num_train_epochs=2"]) == TransformerSettings(
        trunk="models/12", num_train_epochs=2
    )


def test_a_sentence_embedder_is_known_by_its_name_or_marked() -> None:
    assert trunk_settings("all-minilm-l6-v2", overrides=["ridge=1"]) == EmbeddingSettings(ridge=1)
    assert trunk_settings("embedding:org/model") == EmbeddingSettings(trunk="org/model")


def test_a_trunk_that_looks_like_a_number_stays_a_name() -> None:
    for name in ("12", "models/\N{GRINNING FACE}"):
        assert trunk_settings(name) == TransformerSettings(trunk=name)


@pytest.mark.parametrize(
    "override", ["epoch=3", "num_train_epochs=0", "learning_rate=-1", "num_train_epochs=many"]
)
def test_wrong_settings_are_refused(override: str) -> None:
    with pytest.raises(InvalidInputError, match=override.split("=")[0]):
        trunk_settings("a/model", overrides=[override])
