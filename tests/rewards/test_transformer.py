from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from fakes import save_tiny_encoder, save_tiny_llama
from palate.core.errors import FormatError, InvalidInputError
from palate.rewards.classifier import TransformerModel, encode, load_transformer, load_trunk
from palate.rewards.job import fit_reward
from palate.rewards.pairs import PairSet
from palate.rewards.reward import load_reward
from palate.rewards.settings import TransformerSettings
from palate.rewards.transformer import fit_transformer
from rewards.conftest import friendly_pairs


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("trunk"))


@pytest.fixture(scope="module")
def settings(trunk: Path) -> TransformerSettings:
    return TransformerSettings(
        trunk=str(trunk),
        num_train_epochs=4,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        max_length=128,
    )


@pytest.fixture(scope="module")
def model(settings: TransformerSettings) -> TransformerModel:
    return fit_transformer(friendly_pairs(40, seed=1), settings=settings, seed=7)


def test_it_learns_what_tells_the_answers_apart(
    model: TransformerModel, validation_pairs: PairSet
) -> None:
    prompts = validation_pairs.prompts
    margins = model.raw(prompts, validation_pairs.chosen) - model.raw(
        prompts, validation_pairs.rejected
    )
    assert (margins > 0).mean() > 0.9


def test_scores_are_what_transformers_itself_says(model: TransformerModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    ids = torch.tensor([[*model.tokenizer("Q\n\nAn answer")["input_ids"], 2]])  # 2 ends the text
    with torch.no_grad():
        expected = float(plain(input_ids=ids).logits[0, 0])
    assert model.raw(["Q"], ["An answer"])[0] == pytest.approx(expected, abs=1e-6)


def test_a_text_scores_alone_as_in_a_batch_up_to_rounding(model: TransformerModel) -> None:
    prompts, answers = ["a", "bb", "ccc"], ["short", "a longer answer than that", ""]
    batch = model.raw(prompts, answers)
    alone = [model.raw([p], [a])[0] for p, a in zip(prompts, answers, strict=True)]
    np.testing.assert_allclose(batch, alone, atol=1e-5)


def test_the_same_seed_gives_the_same_parameters(
    model: TransformerModel, settings: TransformerSettings
) -> None:
    torch.manual_seed(123)  # the state of the world does not matter
    again = fit_transformer(friendly_pairs(40, seed=1), settings=settings, seed=7)
    assert again.fingerprint == model.fingerprint


def test_training_leaves_the_global_generators_as_they_were(
    settings: TransformerSettings,
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_transformer(
        friendly_pairs(4, seed=1),
        settings=settings.model_copy(update={"num_train_epochs": 1}),
        seed=0,
    )
    assert torch.equal(torch.rand(3), expected)


def test_progress_is_told_step_by_step(settings: TransformerSettings) -> None:
    told: list[tuple[int, int]] = []
    fit_transformer(
        friendly_pairs(16, seed=1),
        settings=settings.model_copy(update={"num_train_epochs": 2}),
        on_step=lambda done, of_all: told.append((done, of_all)),
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_folder_comes_back_and_is_an_ordinary_classifier(
    settings: TransformerSettings,
    train_pairs: PairSet,
    validation_pairs: PairSet,
    tmp_path: Path,
) -> None:
    few = settings.model_copy(update={"num_train_epochs": 1})
    reward = fit_reward(train_pairs, validation=validation_pairs, settings=few)
    reward.save(tmp_path / "kind")
    again = load_reward(tmp_path / "kind")
    assert again.card == reward.card
    assert (again.card.trunk, again.card.settings["num_train_epochs"]) == ("transformer", 1)
    texts = validation_pairs.prompts, validation_pairs.chosen
    assert (again.raw(*texts) == reward.raw(*texts)).all()
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "kind")
    assert plain.config.num_labels == 1


def test_of_a_long_text_the_end_is_read(trunk: Path) -> None:
    _, tokenizer = load_trunk(str(trunk))
    tokenizer.model_max_length = 16
    ids = encode(tokenizer, "x" * 100, "the very end")
    assert len(ids) == 16
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]).endswith("the very end")


def test_with_a_chat_template_the_template_decides(trunk: Path) -> None:
    _, tokenizer = load_trunk(str(trunk))
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    )
    ids = encode(tokenizer, "Human: Hi\n\nAssistant: Yes\n\nHuman: Why?", "So.")
    text = tokenizer.decode(ids[:-1])
    assert text == "<user>Hi<assistant>Yes<user>Why?<assistant>So."


def test_an_encoder_can_be_the_trunk(train_pairs: PairSet, tmp_path: Path) -> None:
    save_tiny_encoder(tmp_path)
    settings = TransformerSettings(
        trunk=str(tmp_path), num_train_epochs=1, per_device_train_batch_size=20
    )
    model = fit_transformer(train_pairs, settings=settings)
    assert model.tokenizer.model_max_length == 128
    assert np.isfinite(model.raw(["p"], ["a"])).all()


def test_trunks_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nowhere' does not exist"):
        load_trunk(str(tmp_path / "nowhere"))
    with pytest.raises(FormatError, match="not a model with a tokenizer"):
        load_trunk(str(tmp_path))


def test_a_classifier_of_several_outputs_and_a_language_model_are_no_rewards(
    model: TransformerModel, trunk: Path, tmp_path: Path
) -> None:
    config = LlamaConfig.from_pretrained(trunk, num_labels=3)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(FormatError, match="3 outputs"):
        load_transformer(tmp_path)
    with pytest.raises(FormatError, match="LlamaForCausalLM"):
        load_transformer(trunk)


def test_a_classifier_of_several_outputs_can_be_the_trunk(
    model: TransformerModel, trunk: Path, tmp_path: Path
) -> None:
    config = LlamaConfig.from_pretrained(trunk, num_labels=3)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    found, _ = load_trunk(str(tmp_path))
    assert found.score.weight.shape == (1, 32)
