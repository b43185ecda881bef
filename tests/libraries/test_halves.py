"""A further seed is taught by what taught the first, whichever way it was split."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from libraries import halves
from palate.build.reward_sources import split_groups
from palate.core.errors import InvalidInputError
from palate.rewards.pairs import PairSet, read_pairs


def pairs_in(folder: Path, *, is_swapped: bool) -> PairSet:
    rows = [{"prompt": f"p{k}", "chosen": f"good {k}", "rejected": f"bad {k}"} for k in range(40)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_pairs(path, objective="kind", is_swapped=is_swapped)


def library(taught: PairSet, monkeypatch: pytest.MonkeyPatch) -> Any:
    card = SimpleNamespace(train=SimpleNamespace(hash=taught.fingerprint))
    monkeypatch.setattr(halves, "load_reward", lambda _folder: SimpleNamespace(card=card))
    manifest = SimpleNamespace(config={"seed": 3})
    return SimpleNamespace(reward_folder=Path, manifest=manifest, folder=Path("first"))


@pytest.mark.parametrize("is_old", [True, False])
def test_the_half_that_taught_is_known_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_old: bool
) -> None:
    pairs = pairs_in(tmp_path, is_swapped=False)
    taught = halves.old_half(pairs, seed=3) if is_old else split_groups(pairs)[0]
    assert halves.taught_half(pairs, library(taught, monkeypatch)).pairs == taught.pairs
    assert len(taught) == 20


def test_pairs_that_taught_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = pairs_in(tmp_path, is_swapped=False)
    other = halves.select(pairs, [k < 3 for k in range(len(pairs))])
    with pytest.raises(InvalidInputError, match="are not those that taught 'kind' in 'first'"):
        halves.taught_half(pairs, library(other, monkeypatch))


@pytest.mark.parametrize("is_swapped", [True, False])
def test_a_half_is_written_as_it_is_read(tmp_path: Path, is_swapped: bool) -> None:
    taught, _ = split_groups(pairs_in(tmp_path, is_swapped=is_swapped))
    rows = halves.rows_of(taught, is_swapped=is_swapped)
    path = tmp_path / "half.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_pairs(path, objective="kind", is_swapped=is_swapped).pairs == taught.pairs
