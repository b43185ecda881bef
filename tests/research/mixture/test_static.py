"""Constant shares that are fitted like a controller."""

from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.engine.bank import AdapterBank
from palate.mixture.mope import fit
from palate.mixture.settings import FitSettings, LossSettings
from palate.models.load import load_base
from research.mixture.static import StaticController, StaticDecoding
from scripted import save_scripted, scripted_task, value_of_static

MAX_TOKENS = 24
BOTH = (0.5, 0.5)
SETTINGS = FitSettings(
    loss=LossSettings(eta=4.0),
    n_updates=15,
    n_pairs=48,
    n_epochs=4,
    batch_pairs=24,
    head_rate=0.2,
    max_tokens=MAX_TOKENS,
)


def best_static() -> float:
    """The best of 41 constant shares, each from 4,000 simulated answers."""
    return max(
        value_of_static(share, max_tokens=MAX_TOKENS, n_answers=4000, seed=5)
        for share in np.linspace(0, 1, 41)
    )


def test_a_static_controller_finds_the_best_constant_share(tmp_path: Path) -> None:
    base_folder, adapters = save_scripted(tmp_path / "scripted")
    base = load_base(base_folder)
    controller = StaticController((BOTH,))
    task = scripted_task(base, AdapterBank.load(base, adapters), StaticDecoding(controller))
    fit(controller, task, SETTINGS, folder=tmp_path / "run")
    share = float(controller.shares(BOTH)[0])
    value = value_of_static(share, max_tokens=MAX_TOKENS, n_answers=4000, seed=5)
    assert value > best_static() - 0.03
    assert float(controller.shares(BOTH).sum()) == pytest.approx(1.0)
    with pytest.raises(InvalidInputError, match="no shares"):
        controller.shares((0.3, 0.7))
