"""The exact cases, and a tiny base with four random experts and a controller."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fakes import save_random_adapter, save_tiny_llama
from palate.engine.bank import AdapterBank
from palate.mixture.controller import PreferenceController, new_controller
from palate.mixture.wording import Wording
from palate.models.load import Base, load_base
from palate.models.trunk import TrunkSettings

EXPERTS = ("brief", "warm", "exact", "dry")


@pytest.fixture(scope="session")
def mope_cases(shared_folder: Path) -> dict[str, Any]:
    return json.loads((shared_folder / "methods" / "cases" / "mope.json").read_text())


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(save_tiny_llama(tmp_path_factory.mktemp("base") / "tiny"))


@pytest.fixture(scope="session")
def bank(base: Base, tmp_path_factory: pytest.TempPathFactory) -> AdapterBank:
    parent = tmp_path_factory.mktemp("adapters")
    return AdapterBank.load(
        base,
        {
            name: save_random_adapter(Path(base.path), parent / name, seed=seed)
            for seed, name in enumerate(EXPERTS)
        },
    )


@pytest.fixture(scope="session")
def wording(base: Base) -> Wording:
    return Wording(base, ("Be brief.", "Be warm.", "Be exact.", "Be dry."))


@pytest.fixture(scope="session")
def controller(base: Base) -> PreferenceController:
    """Its head is not zero, so that its shares depend on what it reads."""
    controller = new_controller(
        TrunkSettings(hidden=16, layers=2, heads=2, feed_forward=24),
        experts=EXPERTS,
        n_vocab=len(base.tokenizer),
        tokenizer_fingerprint=base.tokenizer_fingerprint,
        seed=0,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        shape = controller.head.weight.shape
        controller.head.weight.copy_(torch.randn(shape, generator=generator))
    return controller.eval()
