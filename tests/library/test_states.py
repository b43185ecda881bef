"""States that took long to measure are kept in the cache, and are of their experts alone."""

from pathlib import Path

import numpy as np
import pytest

from palate.library import soup
from palate.library.library import Library


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PALATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(soup, "SLOW_SECONDS", -1.0)
    return tmp_path / "cache/states"


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("measured again")


def test_slow_states_are_measured_once(
    tiny_library: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Library.load(tiny_library).states
    assert len([*cache.iterdir()]) == 1
    monkeypatch.setattr(soup, "sample_states", refuse)
    second = Library.load(tiny_library).states
    assert np.array_equal(first.reference, second.reference)
    assert np.array_equal(first.tilts, second.tilts)
    with pytest.raises(AssertionError, match="measured again"):  # other bits, other states
        _ = Library.load(tiny_library, dtype="bfloat16").states


def test_a_damaged_file_is_measured_again(tiny_library: Path, cache: Path) -> None:
    first = Library.load(tiny_library).states
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    assert np.array_equal(Library.load(tiny_library).states.tilts, first.tilts)
    assert path.stat().st_size > 50


def test_quick_states_leave_no_file(
    tiny_library: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soup, "SLOW_SECONDS", 1000.0)
    _ = Library.load(tiny_library).states
    assert not cache.exists()
