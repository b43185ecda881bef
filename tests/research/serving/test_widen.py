"""Wider heads say the same: base and adapters, against the narrow ones."""

import json
from pathlib import Path

import pytest
import torch

from fakes import save_random_adapter, save_tiny_gpt2, save_tiny_llama
from palate.core.errors import FormatError, InvalidInputError
from palate.engine.bank import AdapterBank
from palate.models.load import Base, load_base
from research.serving.widen import Heads, widen_adapters, widen_base


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Base:
    return load_base(base_folder)


@pytest.fixture(scope="module")
def adapter_folders(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("adapters")
    options = {
        "short": {"rank": 2, "lora_alpha": 4},
        "wide": {"rank": 8, "lora_alpha": 8, "use_rslora": True},
        "head": {"rank": 4, "lora_alpha": 8, "targets": ("lm_head",)},
        "pattern": {"rank": 4, "rank_pattern": {"layers.0.self_attn.q_proj": 3}},
    }
    return {
        name: save_random_adapter(base_folder, parent / name, seed=seed, **own)
        for seed, (name, own) in enumerate(options.items())
    }


def test_the_widened_model_with_its_adapters_gives_the_same_logits(
    base: Base, base_folder: Path, adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    heads = widen_base(base_folder, tmp_path / "wide", head=32)
    assert (heads.old, heads.times) == (8, 4)
    assert json.loads((tmp_path / "wide/config.json").read_text())["head_dim"] == 32
    folders = widen_adapters(adapter_folders, tmp_path / "ad", heads=heads, base_path="wide")
    wide = load_base(tmp_path / "wide")
    ids = torch.randint(3, 259, (2, 40), generator=torch.Generator().manual_seed(0))
    narrow_bank = AdapterBank.load(base, adapter_folders)
    wide_bank = AdapterBank.load(wide, folders)
    for row in ([0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.5, -0.3, 0.8, 0.2]):
        with torch.inference_mode():
            with narrow_bank.applied([row, row]):
                expected = base.model(ids).logits
            with wide_bank.applied([row, row]):
                found = wide.model(ids).logits
        assert float((expected - found).abs().max()) < 1e-4
    narrow_bank.close()


def test_what_has_no_exact_rewriting_is_refused(base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="Heads of 8 cannot be widened to 20"):
        widen_base(base_folder, tmp_path / "odd", head=20)
    with pytest.raises(FormatError, match="no Llama"):
        widen_base(save_tiny_gpt2(tmp_path / "gpt2"), tmp_path / "wide", head=32)
    with pytest.raises(InvalidInputError, match="even"):
        Heads(3, 6)
