import time
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.core.types import PreferencePair
from palate.rewards.light import fit_light, load_light
from palate.rewards.pairs import PairSet, pair_set, swapped
from palate.rewards.settings import LightSettings
from rewards.conftest import friendly_pairs


def test_it_learns_what_tells_the_answers_apart(
    train_pairs: PairSet, validation_pairs: PairSet
) -> None:
    model = fit_light(train_pairs)
    margins = model.raw(validation_pairs.prompts, validation_pairs.chosen) - model.raw(
        validation_pairs.prompts, validation_pairs.rejected
    )
    assert (margins > 0).all()


def test_it_reloads_to_the_same_bits(train_pairs: PairSet, tmp_path: Path) -> None:
    model = fit_light(train_pairs)
    model.save(tmp_path)
    again = load_light(tmp_path)
    texts = [*train_pairs.chosen, "", "an answer with new words, 123"]
    prompts = ["Explain rain."] * len(texts)
    assert (again.raw(prompts, texts) == model.raw(prompts, texts)).all()
    assert again.fingerprint == model.fingerprint


def test_a_text_scores_the_same_bits_alone_and_in_a_batch(train_pairs: PairSet) -> None:
    model = fit_light(train_pairs)
    batch = model.raw(train_pairs.prompts, train_pairs.chosen)
    alone = [
        model.raw([prompt], [answer])[0]
        for prompt, answer in zip(train_pairs.prompts, train_pairs.chosen, strict=True)
    ]
    assert batch.tolist() == alone


def test_the_opposite_objective_has_the_opposite_scores(train_pairs: PairSet) -> None:
    settings = LightSettings(ridge=0.5)
    model = fit_light(train_pairs, settings=settings)
    other = fit_light(swapped(train_pairs, objective="unfriendly"), settings=settings)
    prompts, answers = train_pairs.prompts, train_pairs.chosen
    np.testing.assert_allclose(model.raw(prompts, answers), -other.raw(prompts, answers), atol=1e-6)


def test_the_same_seed_gives_the_same_model(train_pairs: PairSet) -> None:
    assert fit_light(train_pairs, seed=3).fingerprint == fit_light(train_pairs, seed=3).fingerprint


def test_pairs_without_common_terms_are_told_apart_by_length() -> None:
    words = [f"w{i}x{i}" for i in range(40)]
    pairs = [
        PreferencePair(f"p{i}", " ".join([words[2 * i]] * 5), words[2 * i + 1]) for i in range(20)
    ]
    model = fit_light(pair_set(pairs, objective="long"), settings=LightSettings(least_texts=50))
    assert model.words.terms == ()
    long, short = model.raw(["", ""], ["un dos tres cuatro cinco", "un"])
    assert long > short


def test_without_overlap_the_prompt_does_not_matter(train_pairs: PairSet) -> None:
    model = fit_light(train_pairs, settings=LightSettings(with_overlap=False))
    answers = train_pairs.chosen
    assert (
        model.raw(train_pairs.prompts, answers) == model.raw([""] * len(answers), answers)
    ).all()


def test_one_pair_cannot_be_fitted() -> None:
    with pytest.raises(InvalidInputError, match="one group"):
        fit_light(pair_set([PreferencePair("p", "a", "b")], objective="x"))


def test_files_that_do_not_belong_together_are_refused(
    train_pairs: PairSet, validation_pairs: PairSet, tmp_path: Path
) -> None:
    fit_light(train_pairs).save(tmp_path / "a")
    fit_light(validation_pairs).save(tmp_path / "b")
    (tmp_path / "a/light.safetensors").write_bytes((tmp_path / "b/light.safetensors").read_bytes())
    with pytest.raises(FormatError, match="not a light reward"):
        load_light(tmp_path / "a")


def test_six_hundred_short_pairs_take_seconds() -> None:
    pairs = friendly_pairs(600, seed=9)
    started = time.process_time()
    fit_light(pairs)
    assert time.process_time() - started < 10  # about one second of processor time on a free core
