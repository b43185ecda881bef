"""Loading a base: what it is identified by, and what is refused."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from benchmarks.harness.library import HarnessModel
from fakes import save_tiny_llama
from palate.core.decision import Known
from palate.core.errors import FormatError, InvalidInputError
from palate.core.protocols import SamplingParams
from palate.library.library import Library
from palate.models.chat import encode_answer, encode_prompt
from palate.models.load import Base, load_base, require_same_tokenizer


def test_a_base_is_frozen_and_known_by_its_files(
    base: Base, base_folder: Path, tmp_path: Path
) -> None:
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert base.stop_ids == {2}
    copy = shutil.copytree(base_folder, tmp_path / "copy")
    assert load_base(copy).fingerprint == base.fingerprint
    other = load_base(save_tiny_llama(tmp_path / "other", seed=5))
    assert other.fingerprint != base.fingerprint
    assert other.tokenizer_fingerprint == base.tokenizer_fingerprint


def test_what_is_no_base_is_refused(base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        load_base(tmp_path / "nowhere")
    with pytest.raises(FormatError, match="not a causal language model"):
        load_base(tmp_path)
    with pytest.raises(InvalidInputError, match="dtype 'float8' is unknown"):
        load_base(base_folder, dtype="float8")


def test_different_tokenizers_are_refused_naming_both(base: Base) -> None:
    require_same_tokenizer(left=("a", "1"), right=("b", "1"))
    with pytest.raises(FormatError, match="'left' and 'right' differ"):
        require_same_tokenizer(left=("left", base.tokenizer_fingerprint), right=("right", "0" * 64))


def test_texts_longer_than_a_tokenizer_says_make_no_warnings(
    base_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = shutil.copytree(base_folder, tmp_path / "copy")
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 4}))
    text = "Why is the sky blue?"
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING, logger="transformers")
    AutoTokenizer.from_pretrained(copy)(text)
    assert "longer than the specified maximum" in caplog.text  # what transformers says otherwise
    caplog.clear()
    loaded = load_base(copy)
    library = Library.load(copy)
    encode_prompt(loaded, text)
    encode_answer(loaded, text, text, is_ended=True)
    loaded.tokenizer(text)  # as endpoints do
    HarnessModel(library, Known(), "base").rolling(text)
    library.generate(text, sampling=SamplingParams(max_tokens=2))
    assert caplog.text == ""
