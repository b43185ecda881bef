"""A tiny random base and four adapters of different ranks, scales and layers; a server of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import save_random_adapter, save_tiny_llama
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.vllm.client import VllmSettings
from palate.engine.vllm.engine import VllmEngine, connect
from palate.models.load import Base, load_base
from vllm_stand_in import StandIn, standing_in

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
VLLM_NAMES = ("short", "wide", "head")


@pytest.fixture(scope="session")
def mope_cases(shared_folder: Path) -> dict[str, Any]:
    return json.loads((shared_folder / "methods" / "cases" / "mope.json").read_text())


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


@pytest.fixture
def server(base: Base, adapter_folders: dict[str, Path]) -> Iterator[StandIn]:
    with standing_in(base, {name: adapter_folders[name] for name in VLLM_NAMES}) as running:
        yield running


@pytest.fixture(scope="module")
def local(base: Base, adapter_folders: dict[str, Path]) -> Iterator[LocalEngine]:
    bank = AdapterBank.load(base, {name: adapter_folders[name] for name in VLLM_NAMES})
    yield LocalEngine(base, bank)
    bank.close()


@pytest.fixture
def connected(server: StandIn, base: Base, adapter_folders: dict[str, Path], tmp_path: Path):
    opened: list[VllmEngine] = []

    def make(*, rates=(), controllers=None, **changes) -> VllmEngine:
        values = {"max_top_k": 259, "top_k": 259, "n_retries": 0}
        values |= {"adapters_folder": tmp_path / f"adapters-{len(opened)}", **changes}
        settings = VllmSettings(url=server.url, **values)
        folders = {name: adapter_folders[name] for name in VLLM_NAMES}
        engine = connect(settings, base, folders, rates=rates, controllers=controllers)
        opened.append(engine)
        return engine

    yield make
    for engine in opened:
        engine.close()
        engine.context.client.connection.client.close()
