"""Key-value caches whose rows come and go.

A running batch joins newly prefilled rows and drops finished ones at every step. Rows are padded on
the left; columns that no row uses any more are cut off. Every layer keeps all keys, also where the
model attends to a window only (its mask does the windowing): rows of any length share one cache.

transformers' own layers copy all keys and values for every token; these have spare columns for
later tokens, so that most steps copy nothing (with 32 rows of 1,024 tokens a step takes a fifth of
the time). The cache's content is the same.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from palate.core.errors import FormatError
from palate.models.step import is_plain_llama, llama_step

SPARE_TOKENS = 32  # for which buffer is made at a time
UNLIKE_COLUMNS = 256  # by which two caches differ whose rows are attended apart


class _SpareLayer(DynamicLayer):
    """Keys and values of one layer, in buffers with spare columns behind them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._buffers: list[Tensor | None] = [None, None]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append what was computed of new tokens; all keys and values."""
        del args, kwargs
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self._buffers[0] = _appended(self.keys, key_states, self._buffers[0])
        self.values, self._buffers[1] = _appended(self.values, value_states, self._buffers[1])
        return self.keys, self.values


def _appended(old: Tensor | None, new: Tensor, buffer: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both one after another, and their buffer: the old one if it has enough spare columns."""
    n_old = old.shape[2] if old is not None and old.numel() else 0
    n_all = n_old + new.shape[2]
    is_in_buffer = (
        buffer is not None
        and old is not None
        and n_old > 0
        and old.data_ptr() == buffer.data_ptr()
        and old.stride() == buffer.stride()
        and old.shape[0] == buffer.shape[0]
        and n_all <= buffer.shape[2]
    )
    if buffer is None or not is_in_buffer:
        buffer = new.new_empty(*new.shape[:2], n_all + SPARE_TOKENS, new.shape[3])
        if old is not None and n_old:
            buffer[:, :, :n_old] = old
    buffer[:, :, n_old:n_all] = new
    return buffer[:, :, :n_all], buffer


def empty_kv() -> Cache:
    """A cache of nothing, to be filled by a model's passes."""
    return Cache(layer_class_to_replicate=_SpareLayer)


class RowCache:
    """Keys, values and attention mask of the rows of a running batch."""

    def __init__(self, kv: Cache, mask: Tensor) -> None:
        """Take over what a forward pass has filled."""
        self.kv = kv  # the cache of transformers
        self.mask = mask  # `[rows, columns]`, one where a row has a token

    @property
    def n_rows(self) -> int:
        """Rows in the cache."""
        return self.mask.shape[0]

    @property
    def _parts(self) -> list[Tensor]:
        """Keys and values of every layer in turn."""
        return [part for layer in _layers(self.kv) for part in (layer.keys, layer.values)]

    def shapes(self) -> list[tuple[int, int]]:
        """Heads and head width of every layer's keys, then of its values."""
        return [(part.shape[1], part.shape[3]) for part in self._parts]

    def states(self, row: int, start: int, stop: int) -> Float[Tensor, "tokens width"]:
        """Keys and values of all layers side by side, for columns `start` to `stop` of a row."""
        own = [part[row, :, start:stop].transpose(0, 1).flatten(1) for part in self._parts]
        return torch.cat(own, dim=1)

    @classmethod
    def of_states(
        cls,
        states: Float[Tensor, "rows tokens width"],
        mask: Tensor,
        shapes: Sequence[tuple[int, int]],
    ) -> "RowCache":
        """A cache that begins with states; the mask `[rows, columns]` may have more columns."""
        pieces = states.split([heads * width for heads, width in shapes], dim=2)
        parts = [
            piece.unflatten(2, shape).transpose(1, 2)
            for piece, shape in zip(pieces, shapes, strict=True)
        ]
        kv = empty_kv()
        for layer, (keys, values) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
            kv.update(keys, values, layer)
        return cls(kv, mask)

    def select(self, rows: Tensor) -> None:
        """Keep the rows with these indices, `[rows]`, in this order; an index may repeat."""
        self.kv.batch_select_indices(rows)
        self.mask = self.mask[rows]
        used = self.mask.any(dim=0).nonzero()
        first = int(used[0]) if len(used) else 0
        if first == 0:
            return
        self.mask = self.mask[:, first:]
        for layer in _layers(self.kv):
            layer.keys = layer.keys[:, :, first:]
            layer.values = layer.values[:, :, first:]

    def join(self, other: "RowCache") -> None:
        """Append the other cache's rows below these."""
        width = max(self.mask.shape[1], other.mask.shape[1])
        self._widen(width)
        other._widen(width)
        for mine, theirs in zip(_layers(self.kv), _layers(other.kv), strict=True):
            mine.keys = torch.cat([mine.keys, theirs.keys])
            mine.values = torch.cat([mine.values, theirs.values])
        self.mask = torch.cat([self.mask, other.mask])

    def extend(self) -> None:
        """Add a column to the mask for one more token in every row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(self.n_rows, 1)], dim=1)

    def logits(self, model: Any, new: Tensor) -> Float[Tensor, "rows vocab"]:
        """Logits after new tokens, `[sequences, tokens]`, whose columns the mask has already."""
        if new.shape[1] == 1 and self.kv.layers and is_plain_llama(model):
            return llama_step(model, new, parts=[(slice(None), self.mask, self.kv)])
        positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -new.shape[1] :]
        output = model(
            input_ids=new,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.kv,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _widen(self, width: int) -> None:
        extra = width - self.mask.shape[1]
        if extra == 0:
            return
        self.mask = pad(self.mask, (extra, 0))
        for layer in _layers(self.kv):
            layer.keys = pad(layer.keys, (0, 0, extra, 0))
            layer.values = pad(layer.values, (0, 0, extra, 0))


class BatchCache:
    """The rows of a running batch in caches of rows of like width.

    A long prompt that joins would widen every row's keys and values; it gets a cache of its own.
    Where the model's step cannot attend apart, all rows are put into one at the next step.
    """

    def __init__(self, cache: RowCache) -> None:
        """Begin with one cache."""
        self._parts = [(cache, list(range(cache.n_rows)))]  # each with its rows' places, ascending

    def part_of(self, row: int) -> tuple[RowCache, int]:
        """The cache that holds a row, and its index there."""
        cache, places = next(part for part in self._parts if row in part[1])
        return cache, places.index(row)

    def select(self, rows: Tensor) -> None:
        """Keep the rows with these indices, `[rows]`, in this order; an index may repeat."""
        wanted, parts = rows.tolist(), []
        for cache, places in self._parts:
            index_of = {place: index for index, place in enumerate(places)}
            stay = [(new, index_of[row]) for new, row in enumerate(wanted) if row in index_of]
            index = [index for _, index in stay]
            if index and index != list(range(cache.n_rows)):
                cache.select(torch.tensor(index, device=rows.device))
            if index:
                parts.append((cache, [new for new, _ in stay]))
        self._parts = parts

    def join(self, other: "BatchCache") -> None:
        """Append the other's rows below these."""
        first = sum(len(places) for _, places in self._parts)
        for cache, places in other._parts:
            self._take(cache, [first + place for place in places], most_unlike=UNLIKE_COLUMNS)

    def extend(self) -> None:
        """Add a column for one more token in every row."""
        for cache, _ in self._parts:
            cache.extend()

    def logits(self, model: Any, new: Tensor) -> Float[Tensor, "rows vocab"]:
        """As `RowCache.logits`, of new tokens, `[sequences, tokens]`."""
        if len(self._parts) > 1 and new.shape[1] == 1 and is_plain_llama(model):
            parts = [
                (torch.tensor(places, device=new.device), one.mask, one.kv)
                for one, places in self._parts
            ]
            return llama_step(model, new, parts=parts)
        others, self._parts = self._parts[1:], self._parts[:1]
        for cache, places in others:
            self._take(cache, places, most_unlike=math.inf)
        return self._parts[0][0].logits(model, new)

    def _take(self, cache: RowCache, places: list[int], *, most_unlike: float) -> None:
        for part, (mine, own) in enumerate(self._parts):
            if abs(mine.mask.shape[1] - cache.mask.shape[1]) <= most_unlike:
                mine.join(cache)
                order = sorted(range(len(own) + len(places)), key=(own + places).__getitem__)
                if order != list(range(len(order))):
                    mine.select(torch.tensor(order, device=mine.mask.device))
                self._parts[part] = (mine, sorted(own + places))
                return
        self._parts.append((cache, places))


def _layers(kv: Cache) -> list[Any]:
    layers: list[Any] = list(kv.layers)
    for layer in layers:
        if getattr(layer, "keys", None) is None:
            raise FormatError(
                f"The base model keeps a {type(layer).__name__} instead of keys and values; only "
                "attention models can be batched."
            )
    return layers
