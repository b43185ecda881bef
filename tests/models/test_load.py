"""Loading a base: what it is identified by, and what is refused."""

import shutil
from pathlib import Path

import pytest

from fakes import save_tiny_llama
from palate.core.errors import FormatError, InvalidInputError
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
