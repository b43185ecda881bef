"""Tokens as text: what they add, spaces included."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

from palate.engine.detokenize import token_text, token_texts
from palate.library.library import Library

WORDS = ["<unk>", "\u2581a", "\u2581Once", "\u2581upon", "\u2581ti", "me", ".", "\u2581It"]


@pytest.fixture(scope="module")
def sentence_piece() -> SimpleNamespace:
    """A tokenizer as Llama 2's: words carry the space before them."""
    backend = Tokenizer(WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return SimpleNamespace(tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend))


def test_the_tokens_of_an_answer_join_to_what_they_add_to_a_prompt(
    sentence_piece: SimpleNamespace,
) -> None:
    tokens = [WORDS.index(word) for word in WORDS[2:]]
    texts = token_texts(sentence_piece, tokens)
    assert texts == [" Once", " upon", " ti", "me", ".", " It"]
    whole = sentence_piece.tokenizer.decode([WORDS.index(WORDS[1]), *tokens])
    assert "a" + "".join(texts) == whole


def test_a_token_of_bytes_adds_what_it_is(tiny_library: Path) -> None:
    opened = Library.load(tiny_library)
    ids = opened.base.tokenizer("Why is it?", add_special_tokens=False)["input_ids"]
    assert "".join(token_texts(opened.base, ids)) == "Why is it?"


def test_half_a_character_shows_the_replacement_sign() -> None:
    backend = Tokenizer(BPE({"a": 0, "\u00c3": 1, "\u00a9": 2}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    base = SimpleNamespace(tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend))
    assert token_text(base, 1) == "\ufffd"
