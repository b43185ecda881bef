"""Rows come and go while tokens are appended: the cache is what transformers' own would be."""

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from fakes import llama
from palate.models import cache as cache_module
from palate.models.cache import SPARE_TOKENS, BatchCache, RowCache, empty_kv

HEADS, WIDTH, LAYERS = 2, 3, 2


def drawn(rng: np.random.Generator, n_rows: int, n_tokens: int) -> list[torch.Tensor]:
    return [torch.tensor(rng.normal(size=(n_rows, HEADS, n_tokens, WIDTH))) for _ in range(4)]


def fill(kv, parts: list[torch.Tensor]) -> None:
    for layer in range(LAYERS):
        kv.update(parts[2 * layer], parts[2 * layer + 1], layer)


def require_same(mine, plain) -> None:
    for one, other in zip(mine.layers, plain.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_is_what_transformers_keeps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mine, plain = RowCache(empty_kv(), torch.ones(3, 5)), DynamicCache()
    parts = drawn(rng, 3, 5)
    fill(mine.kv, parts)
    fill(plain, parts)
    for _ in range(120):
        if rng.random() < 0.1:
            rows = torch.tensor(rng.integers(mine.n_rows, size=rng.integers(1, 5)))
            mine.select(rows)
            plain.batch_select_indices(rows)
        parts = drawn(rng, mine.n_rows, 1)
        mine.extend()
        fill(mine.kv, parts)
        fill(plain, parts)
        require_same(mine.kv, plain)


def test_most_tokens_are_appended_without_a_copy() -> None:
    rng = np.random.default_rng(0)
    kv = empty_kv()
    fill(kv, drawn(rng, 2, 7))
    places: list[int] = []
    for _ in range(3 * SPARE_TOKENS):
        fill(kv, drawn(rng, 2, 1))
        places.append(kv.layers[0].keys.data_ptr())
    assert len(set(places)) <= 4
    assert kv.get_seq_length() == 7 + 3 * SPARE_TOKENS


def test_two_caches_of_the_same_rows_do_not_write_into_each_other() -> None:
    rng = np.random.default_rng(0)
    one = RowCache(empty_kv(), torch.ones(2, 4))
    fill(one.kv, drawn(rng, 2, 4))
    states = [one.states(row, 0, 4) for row in range(2)]
    two = RowCache.of_states(torch.stack(states), torch.ones(2, 4), one.shapes())
    require_same(one.kv, two.kv)
    before = one.kv.layers[0].keys.clone()
    fill(two.kv, drawn(rng, 2, 1))
    fill(one.kv, drawn(rng, 2, 1))
    assert torch.equal(one.kv.layers[0].keys[:, :, :4], before)
    assert not torch.equal(one.kv.layers[0].keys[:, :, 4:], two.kv.layers[0].keys[:, :, 4:])
    assert torch.equal(states[0], two.states(0, 0, 4))


def test_joined_rows_end_together() -> None:
    rng = np.random.default_rng(0)
    short = RowCache(empty_kv(), torch.ones(1, 2, dtype=torch.long))
    long = RowCache(empty_kv(), torch.ones(2, 5, dtype=torch.long))
    few, many = drawn(rng, 1, 2), drawn(rng, 2, 5)
    fill(short.kv, few)
    fill(long.kv, many)
    short.join(long)
    assert short.mask.tolist() == [[0, 0, 0, 1, 1], [1] * 5, [1] * 5]
    keys = short.kv.layers[0].keys
    assert torch.equal(keys[0, :, 3:], few[0][0])
    assert torch.equal(keys[1:], many[0])
    short.select(torch.tensor([0]))  # the long ones leave, and their columns with them
    assert short.mask.tolist() == [[1, 1]]
    assert torch.equal(short.kv.layers[0].keys, few[0])


@pytest.mark.parametrize("seed", range(3))
@torch.inference_mode()
def test_rows_in_caches_of_their_own_width_answer_as_in_one(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of unlike lengths join and leave; the model steps apart, and after a merge together."""
    monkeypatch.setattr(cache_module, "UNLIKE_COLUMNS", 4)
    model = llama()
    rng = np.random.default_rng(seed)
    apart: BatchCache | None = None
    rows: list[list[int]] = []
    most = 0
    for _ in range(25):
        if apart is None or rng.random() < 0.4:
            prompts = rng.integers(1, 64, (int(rng.integers(1, 3)), int(rng.integers(2, 20))))
            cache = BatchCache(RowCache(empty_kv(), torch.ones(prompts.shape, dtype=torch.long)))
            cache.logits(model, torch.tensor(prompts))
            rows += prompts.tolist()
            if apart is None:
                apart = cache
            else:
                apart.join(cache)
        elif rng.random() < 0.4 and len(rows) > 1:
            kept = sorted(rng.permutation(len(rows))[: len(rows) - 1].tolist())
            apart.select(torch.tensor(kept))
            rows = [rows[place] for place in kept]
        most = max(most, len({id(apart.part_of(row)[0]) for row in range(len(rows))}))
        new = rng.integers(1, 64, (len(rows), 1))
        rows = [row + own for row, own in zip(rows, new.tolist(), strict=True)]
        if rng.random() < 0.1:  # a model without the step: all in one cache
            with monkeypatch.context() as patch:
                patch.setattr(cache_module, "is_plain_llama", lambda _model: False)
                apart.extend()
                logits = apart.logits(model, torch.tensor(new))
        else:
            apart.extend()
            logits = apart.logits(model, torch.tensor(new))
        for row, own in enumerate(rows):
            alone = model(torch.tensor([own])).logits[0, -1]
            assert torch.allclose(logits[row], alone, atol=5e-6)
            cache, place = apart.part_of(row)
            assert int(cache.mask[place].sum()) == len(own)
    assert most > 1
