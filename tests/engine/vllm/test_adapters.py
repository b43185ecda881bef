"""Which adapters are on the server: the least recently used one goes, one in use never does."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.engine.vllm.adapters import AdapterCache, SoupMaker
from palate.models.adapter import load_adapter


@pytest.fixture
def cache(tmp_path: Path) -> AdapterCache:
    log: list[str] = []
    made = AdapterCache(
        folder=tmp_path,
        capacity=2,
        load=lambda name, folder: log.append(f"+{name}"),
        unload=lambda name: log.append(f"-{name}"),
    )
    made.log = log  # type: ignore[attr-defined]
    return made


def use(cache: AdapterCache, *names: str):
    return cache.held({name: lambda folder: folder.mkdir() for name in names})


def test_the_least_recently_used_adapter_makes_room(cache: AdapterCache, tmp_path: Path) -> None:
    for name in ("a", "b", "a", "c"):
        with use(cache, name):
            pass
    assert cache.log == ["+a", "+b", "-b", "+c"]  # type: ignore[attr-defined]
    assert cache.names == ("a", "c")
    cache.close()
    assert cache.names == ()


def test_files_stay_until_as_many_others_were_evicted(cache: AdapterCache, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        with use(cache, name):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d"]
    with use(cache, "a"):  # c goes; a is back, so that b and c are the last two that went
        pass
    with use(cache, "e"):  # d goes: the third since
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "d", "e"]


def test_files_of_whoever_had_the_folder_before_go_as_those_of_evicted_ones_do(
    tmp_path: Path,
) -> None:
    for age, name in enumerate(("old", "older", "oldest")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "lock").touch()
    cache = AdapterCache(
        folder=tmp_path, capacity=1, load=lambda *_: None, unload=lambda _name: None
    )
    for name in ("a", "old"):  # a goes; old is taken as it is
        with use(cache, name):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "lock", "old"]


def test_an_adapter_in_use_stays_and_whoever_needs_room_waits(cache: AdapterCache) -> None:
    entered = threading.Event()

    def third() -> None:
        with use(cache, "c"):
            entered.set()

    with use(cache, "a"):
        with use(cache, "b"):
            thread = threading.Thread(target=third)
            thread.start()
            assert not entered.wait(0.2)
        assert entered.wait(5.0)  # b was let go: it goes, not a, which is older
        thread.join()
        assert set(cache.names) == {"a", "c"}


def test_more_adapters_at_once_than_fit_are_refused(cache: AdapterCache) -> None:
    with pytest.raises(InvalidInputError, match="needs 3 merged adapters"), use(cache, *"abc"):
        pass


def test_a_soup_on_disk_is_the_dense_sum_and_has_the_ranks_of_its_experts(
    adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    adapters = [load_adapter(adapter_folders[name]) for name in ("short", "wide", "pattern")]
    maker = SoupMaker(adapters, "base", "key", "ours-")
    coefficients = (0.5, 0.0, -1.5)
    assert maker.rank(coefficients) == 2 + 4
    maker.save(coefficients, tmp_path / "soup")
    merged = load_adapter(tmp_path / "soup")
    for layer, factor in merged.items():
        expected = sum(
            c * a[layer].scale * (a[layer].up @ a[layer].down)
            for c, a in zip(coefficients, adapters, strict=True)
            if layer in a
        )
        assert np.allclose(factor.scale * factor.up @ factor.down, expected, atol=1e-5)
    assert maker.name(coefficients) == maker.name((0.5, 0, -1.5))
    assert maker.name(coefficients) != maker.name((0.5, 0.1, -1.5))
    other = SoupMaker(adapters, "base", "key", "theirs-")
    assert maker.name(coefficients).removeprefix("ours-") == other.name(coefficients)[7:]


def test_the_base_as_an_adapter_changes_nothing(
    adapter_folders: dict[str, Path], tmp_path: Path
) -> None:
    maker = SoupMaker([load_adapter(adapter_folders["short"])], "base", "key", "")
    maker.save((0.0,), tmp_path / "zero")
    for factor in load_adapter(tmp_path / "zero").values():
        assert factor.rank == 1
        assert not (factor.up @ factor.down).any()
