"""Tokens as the text that they add to an answer."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from palate.models.load import Base


def token_text(base: Base, token: int) -> str:
    """What the token adds to the text before it.

    Tokenizers that mark words by a space before them (SentencePiece) leave it out where a text
    begins, so a token decoded on its own would lose it. A token in the middle of a character shows
    the replacement sign.
    """
    before, text = _before(base.tokenizer)
    whole = _decoded(base.tokenizer, [before, token])
    if whole.startswith(text):
        return whole[len(text) :]
    return _decoded(base.tokenizer, [token])


def token_texts(base: Base, tokens: Sequence[int]) -> list[str]:
    """What each token of an answer adds to it."""
    return [token_text(base, token) for token in tokens]


@lru_cache(maxsize=8)
def _before(tokenizer: Any) -> tuple[int, str]:
    """A token that may stand before any other, and its text."""
    token = int(tokenizer("a", add_special_tokens=False)["input_ids"][-1])
    return token, _decoded(tokenizer, [token])


def _decoded(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))
