"""A tiny random base and four adapters of different ranks, scales and layers."""

from pathlib import Path

import pytest

from fakes import save_random_adapter, save_tiny_llama
from palate.models.bank import AdapterBank
from palate.models.load import Base, load_base

ADAPTERS = {
    "short": {"rank": 2, "lora_alpha": 4},
    "wide": {"rank": 8, "lora_alpha": 8, "use_rslora": True},
    "head": {"rank": 4, "lora_alpha": 8, "targets": ("lm_head",)},
    "pattern": {
        "rank": 4,
        "lora_alpha": 6,
        "rank_pattern": {"layers.0.self_attn.q_proj": 3},
        "alpha_pattern": {"layers.1.mlp.gate_proj": 5},
    },
}


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def adapter_folders(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("adapters")
    return {
        name: save_random_adapter(base_folder, parent / name, seed=seed, **options)
        for seed, (name, options) in enumerate(ADAPTERS.items())
    }


@pytest.fixture(scope="session")
def base(base_folder: Path) -> Base:
    return load_base(base_folder)


@pytest.fixture(scope="session")
def bank(base: Base, adapter_folders: dict[str, Path]) -> AdapterBank:
    return AdapterBank.load(base, adapter_folders)
