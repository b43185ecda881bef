"""The data type `auto`: raced once, stored, and bfloat16 only where it clearly wins."""

from pathlib import Path

import pytest
import torch

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.models import dtype as module
from palate.models.dtype import faster_dtype
from palate.models.load import load_base


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_processor", lambda: "flags: avx512_bf16")
    return tmp_path / "cache"


@pytest.mark.parametrize(("bfloat16", "winner"), [(0.5, "bfloat16"), (0.95, "float32")])
def test_bfloat16_has_to_win_clearly_and_the_race_is_stored(
    bfloat16: float, winner: str, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: bfloat16}
    monkeypatch.setattr(module, "_seconds", seconds.__getitem__)
    assert faster_dtype("base", lambda dtype: dtype) == winner
    assert len(list((cache / "dtypes").iterdir())) == 1
    monkeypatch.setattr(module, "_seconds", None)  # another race would fail
    assert faster_dtype("base", lambda dtype: dtype) == winner
    with pytest.raises(TypeError):
        faster_dtype("another base", lambda dtype: dtype)


def test_a_processor_without_bfloat16_is_not_raced(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_processor", lambda: "flags: avx512f avx512bf_not")
    monkeypatch.setattr(module, "_seconds", None)
    assert load_base(base_folder, dtype="auto").dtype == "float32"


def test_a_base_is_raced_and_loaded_in_what_won(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(module, "MAX_SECONDS", 0.05)
    base = load_base(base_folder, dtype="auto")
    (stored,) = (cache / "dtypes").iterdir()
    assert f'"dtype": "{base.dtype}"' in stored.read_text()
    assert load_base(base_folder, dtype="auto").dtype == base.dtype


def test_quantised_bases_are_for_gpus_with_bitsandbytes(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInputError, match="'4bit' needs a GPU, but the device is 'cpu'"):
        load_base(base_folder, dtype="4bit")
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="pip install bitsandbytes"):
        load_base(base_folder, dtype="8bit", device="cuda")
