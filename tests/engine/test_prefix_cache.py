"""The store of what was read: longest beginnings, whose they are, and what goes first."""

import numpy as np
import pytest
import torch

from palate.engine.prefix_cache import PrefixCache


def states(tokens: list[int]) -> torch.Tensor:
    """`[tokens, 2]`: each token and the sum of those up to it, so that a mix-up shows."""
    ids = torch.tensor(tokens, dtype=torch.float64)
    return torch.stack([ids, ids.cumsum(0)], dim=1)


def put(store: PrefixCache, key: str, tokens: list[int]) -> None:
    store.insert((key,), tokens, lambda start, stop: states(tokens)[start:stop])


def known(store: PrefixCache, key: str, tokens: list[int]) -> int:
    found = store.lookup((key,), tokens)
    if found:
        whole = torch.cat(found)
        assert torch.equal(whole, states(tokens)[: len(whole)])
    return sum(len(block) for block in found)


def test_whole_blocks_of_the_longest_beginning_are_found() -> None:
    store = PrefixCache(1000)
    text = list(range(50))
    put(store, "a", text)
    assert store.n_tokens == 48
    assert known(store, "a", text) == 48
    assert known(store, "a", text[:47]) == 32
    assert known(store, "a", [*text[:40], 99, *text[41:]]) == 32
    assert known(store, "a", [99, *text[1:]]) == 0
    assert known(store, "b", text) == 0


def test_a_continued_text_is_asked_for_its_new_blocks_only() -> None:
    store = PrefixCache(1000)
    put(store, "a", list(range(40)))
    asked: list[tuple[int, int]] = []

    def of(start: int, stop: int) -> torch.Tensor:
        asked.append((start, stop))
        return states(list(range(70)))[start:stop]

    for _ in range(2):
        store.insert(("a",), list(range(70)), of)
    assert asked == [(32, 64)]
    assert known(store, "a", list(range(70))) == 64


def test_what_was_not_used_for_longest_goes_first_and_never_under_what_stands_on_it() -> None:
    store = PrefixCache(64)
    shared = list(range(16))
    put(store, "a", [*shared, *range(100, 116)])
    put(store, "a", [*shared, *range(200, 216)])
    assert known(store, "a", [*shared, *range(100, 116)]) == 32  # used last
    put(store, "a", list(range(300, 332)))
    assert store.n_tokens == 64
    assert known(store, "a", [*shared, *range(200, 216)]) == 16
    assert known(store, "a", [*shared, *range(100, 116)]) == 32
    assert known(store, "a", list(range(300, 332))) == 32


def test_a_text_longer_than_the_store_is_kept_as_far_as_it_goes() -> None:
    store = PrefixCache(40)
    put(store, "a", list(range(100)))
    assert (store.n_tokens, known(store, "a", list(range(100)))) == (32, 32)
    small = PrefixCache(15)
    put(small, "a", list(range(100)))
    assert (small.n_tokens, known(small, "a", list(range(100)))) == (0, 0)


def test_dropped_keys_take_their_blocks_along_and_no_others() -> None:
    store = PrefixCache(1000)
    for key in ("a", "b"):
        put(store, key, list(range(40)))
        put(store, key, [*range(16), *range(100, 116)])
    store.drop(lambda key: key[0] == "a")
    assert (store.n_tokens, known(store, "a", list(range(40)))) == (48, 0)
    assert known(store, "b", [*range(16), *range(100, 116)]) == 32


@pytest.mark.parametrize("seed", range(5))
def test_many_texts_are_found_as_far_as_a_list_of_all_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    store, told = PrefixCache(10**6), list[tuple[str, list[int]]]()
    for _ in range(60):
        key = str(rng.choice(["a", "b"]))
        text = rng.integers(2, size=4).repeat(16)[: rng.integers(1, 65)].tolist()
        expected = max(
            (
                n
                for owner, other in told
                for n in range(0, min(len(text), len(other)) + 1, 16)
                if owner == key and text[:n] == other[:n]
            ),
            default=0,
        )
        assert known(store, key, text) == expected
        put(store, key, text)
        told.append((key, text))


def test_what_is_kept_is_a_copy() -> None:
    store, mine = PrefixCache(100), states(list(range(16)))
    store.insert(("a",), list(range(16)), lambda start, stop: mine[start:stop])
    mine.zero_()
    assert known(store, "a", list(range(16))) == 16
