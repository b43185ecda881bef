"""Texts that are longer than what the base reads."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes import save_tiny_llama
from palate.core.errors import InvalidInputError
from palate.core.protocols import SamplingParams
from palate.library.library import Library
from palate.models.chat import require_answers_fit, require_prompt_fits
from palate.models.load import load_base


def test_a_prompt_that_fills_the_base_is_refused_before_anything_is_read(
    tiny_library: Path,
) -> None:
    opened = Library.load(tiny_library)
    most = opened.base.n_positions
    assert most is not None
    long = "why " * (2 * most)
    with pytest.raises(InvalidInputError, match=f"but the base reads {most} with the answer"):
        opened.generate(long, method="base", sampling=SamplingParams(max_tokens=2))
    assert opened.generate("why", method="base", sampling=SamplingParams(max_tokens=2)).text


def test_answers_as_long_as_the_base_reads_are_refused_by_their_key(tmp_path: Path) -> None:
    base = load_base(save_tiny_llama(tmp_path / "base"))
    most = base.n_positions
    assert most is not None
    require_answers_fit(base, most - 1, key="rollouts.max_completion_length")
    with pytest.raises(
        InvalidInputError, match=f"'rollouts.max_completion_length' has the value {most}"
    ):
        require_answers_fit(base, most, key="rollouts.max_completion_length")


def test_a_base_that_does_not_say_how_much_it_reads_takes_all(
    tiny_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Library.load(tiny_library).base
    silent = SimpleNamespace(get_text_config=SimpleNamespace)
    monkeypatch.setattr(base.model, "config", silent)
    assert base.n_positions is None
    require_prompt_fits(base, "why " * 5000)
    require_answers_fit(base, 10**9, key="x")
