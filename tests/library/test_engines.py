"""Choosing and opening engines: settings are checked before anything is sent."""

from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.plan import parameter_soup_plan
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.vllm.engine import expert_folders_in
from palate.engine.vllm.rounding import rates_of
from palate.library.engines import choose_engine
from palate.library.library import Library
from palate.library.soup import answers_to_measure


def test_an_unknown_engine_or_setting_is_refused_in_a_sentence() -> None:
    with pytest.raises(InvalidInputError, match="'sglang' is unknown; use vllm, openai"):
        choose_engine("sglang", {})
    with pytest.raises(InvalidInputError, match="top_n"):
        choose_engine("vllm", {"url": "http://x/v1", "top_n": 3})
    endpoints = {"base": {"url": "http://x/v1", "model": "m"}}
    with pytest.raises(InvalidInputError, match="'NO_SUCH_KEY' of api_key_env is not set"):
        choose_engine("openai", {"endpoints": endpoints, "api_key_env": "NO_SUCH_KEY"})


def test_adapters_are_found_by_name_and_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no adapters"):
        expert_folders_in(tmp_path)
    (tmp_path / "short").mkdir()
    (tmp_path / "notes.txt").touch()
    assert expert_folders_in(tmp_path) == {"short": tmp_path / "short"}


def test_rates_bound_how_fast_a_librarys_own_texts_change(
    tiny_library: Path, tiny_soup_library: Path
) -> None:
    for folder in (tiny_library, tiny_soup_library):  # without rollouts, and with
        opened = Library.load(folder)
        items = answers_to_measure(opened.files, opened.base, opened.bank)[:4]
        rates = rates_of(opened.base, opened.bank, items=items)
        assert len(rates) == opened.bank.n_experts
        assert all(0 < rate < np.inf for rate in rates)
        item = Scored((1, 70, 71), (72, 73))
        at, near = (
            row_distributions(opened.base, opened.bank, plan=parameter_soup_plan(c), item=item)
            for c in ((0.4, 0.2, 0.0), (0.4, 0.225, 0.0))
        )
        change = 0.5 * (at[0].exp() - near[0].exp()).abs().sum(dim=1).max()
        assert float(change) <= 2 * 0.025 * rates[1]  # another text: near, not within
