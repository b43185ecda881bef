"""Which beginnings of prompts a user has sent, so that `cached_tokens` tells of nobody else's."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

from palate.engine.prefix_cache import BLOCK_TOKENS

MAX_BLOCKS = 200_000  # of all users; the longest unused ones are forgotten


class OwnPrefixes:
    """Hashes of the blocks of what each user sent and was answered."""

    def __init__(self) -> None:
        """Start with nothing sent."""
        self._seen: OrderedDict[int, None] = OrderedDict()

    def count(self, owner: Hashable, tokens: Sequence[int]) -> int:
        """Tokens of the longest beginning, in whole blocks, that the owner sent before; now all."""
        n_own, at = 0, hash(owner)
        for start in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            at = hash((at, tuple(tokens[start : start + BLOCK_TOKENS])))
            if at in self._seen and n_own == start:
                n_own += BLOCK_TOKENS
            self._seen[at] = None
            self._seen.move_to_end(at)
        while len(self._seen) > MAX_BLOCKS:
            self._seen.popitem(last=False)
        return n_own
