"""Keys and values of earlier prompts and answers, so that a common prefix is prefilled once.

Tokens are cached in blocks of sixteen, each under the block before it; the first lies under a key
that says whose keys and values they are. The least recently used block is evicted first, a block
always before the one it stands on.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from jaxtyping import Float
from torch import Tensor

BLOCK_TOKENS = 16


@dataclass(frozen=True, eq=False)
class _Block:
    number: int
    key: Hashable  # under which its prefix began
    states: Float[Tensor, "tokens width"]


class PrefixCache:
    """States of prefixes, up to a number of tokens that is rounded down to whole blocks."""

    def __init__(self, max_tokens: int) -> None:
        """Start empty."""
        self.max_tokens = max_tokens
        self._blocks: OrderedDict[tuple[Hashable, tuple[int, ...]], _Block] = OrderedDict()
        self._numbers = count()

    @property
    def n_tokens(self) -> int:
        """Tokens in the cache."""
        return len(self._blocks) * BLOCK_TOKENS

    def lookup(self, key: Hashable, tokens: Sequence[int]) -> list[Float[Tensor, "tokens width"]]:
        """The states of the longest cached prefix of `tokens`, block by block."""
        path = self._path(key, tokens)
        self._touch(path)
        return [self._blocks[place].states for place in path]

    def insert(
        self,
        key: Hashable,
        tokens: Sequence[int],
        states_of: Callable[[int, int], Float[Tensor, "tokens width"]],
    ) -> None:
        """Cache the whole blocks of `tokens`.

        Equal keys and tokens mean equal states. `states_of` gives those of the tokens from the
        first number up to the second; it is called at most once, and they are copied.
        """
        path = self._path(key, tokens)
        n_cached, n_whole = len(path), min(len(tokens), self.max_tokens) // BLOCK_TOKENS
        if n_whole > n_cached:
            states = states_of(n_cached * BLOCK_TOKENS, n_whole * BLOCK_TOKENS)
            before: Hashable = self._blocks[path[-1]].number if path else key
            for place, part in enumerate(states.split(BLOCK_TOKENS), start=n_cached):
                at = (before, tuple(tokens[place * BLOCK_TOKENS : (place + 1) * BLOCK_TOKENS]))
                before = next(self._numbers)
                self._blocks[at] = _Block(before, key, part.clone())
                path.append(at)
        self._touch(path)
        while self.n_tokens > self.max_tokens:
            self._blocks.popitem(last=False)

    def drop(self, is_gone: Callable[[Any], bool]) -> None:
        """Drop all blocks of the keys of which this is true."""
        for at in [at for at, block in self._blocks.items() if is_gone(block.key)]:
            del self._blocks[at]

    def _path(self, key: Hashable, tokens: Sequence[int]) -> list[tuple[Hashable, tuple[int, ...]]]:
        path: list[tuple[Hashable, tuple[int, ...]]] = []
        before = key
        for start in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            at = (before, tuple(tokens[start : start + BLOCK_TOKENS]))
            if at not in self._blocks:
                break
            path.append(at)
            before = self._blocks[at].number
        return path

    def _touch(self, path: list[tuple[Hashable, tuple[int, ...]]]) -> None:
        for at in reversed(path):  # the first block last, so that it outlives those on it
            self._blocks.move_to_end(at)
