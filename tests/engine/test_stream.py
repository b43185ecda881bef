"""Text from tokens: whole characters, and nothing past a stop string."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from fakes import byte_tokenizer
from palate.engine.stream import TextStream

TOKENIZER = byte_tokenizer()


def pieces(text: str, *, stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(TOKENIZER.backend_tokenizer, stop=stop)
    shown = []
    for token in TOKENIZER(text, add_special_tokens=False)["input_ids"]:
        shown.append(stream.push(token))
        if stream.is_stopped:
            return shown, stream
    return [*shown, stream.flush()], stream


@given(st.text(alphabet="abcé漢🙂 .", max_size=30))
@settings(max_examples=50, deadline=None)
def test_the_pieces_join_to_the_text_and_each_is_whole_characters(text: str) -> None:
    shown, stream = pieces(text)
    assert "".join(shown) == text == stream.text
    assert not any("\ufffd" in piece for piece in shown)


@given(st.text(alphabet="ab", max_size=20), st.text(alphabet="ab", min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_the_text_ends_before_the_first_stop_string(text: str, word: str) -> None:
    shown, stream = pieces(text, stop=(word,))
    assert "".join(shown) == text.split(word)[0] == stream.text
    assert stream.is_stopped == (word in text)


def byte_level() -> Tokenizer:
    """As GPT-2's: a letter of the alphabet per byte, and some words; its specials show nothing."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("\u0120", "ab"), ("\u00c3", "\u00a9")]
    words = ["<s>", *letters, *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE({word: k for k, word in enumerate(words)}, merges))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>"])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2's: words with the space before them, and a token for each byte."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["\u2581", "\u2581a", "\u2581\u2581", "b", "\u2581once", "\u00e9", "\ufffd", "."]
    tokenizer = Tokenizer(
        models.BPE({word: k for k, word in enumerate(words)}, [], byte_fallback=True)
    )
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT's: parts of words with `##` before them, and punctuation that is moved up."""
    words = [
        "[UNK]",
        "[CLS]",
        "a",
        "##b",
        "##ing",
        "the",
        ".",
        ",",
        "'",
        "s",
        "do",
        "n't",
        "\u00e9",
    ]
    tokenizer = Tokenizer(models.WordPiece({word: k for k, word in enumerate(words)}))
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    tokenizer.add_special_tokens(["[CLS]"])
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, byte_fallback, word_piece])
def test_any_tokens_stream_to_the_text_of_all_of_them(make) -> None:
    tokenizer = make()
    generator = np.random.default_rng(0)
    size = tokenizer.get_vocab_size()
    for _ in range(1000):
        ids = generator.integers(
            0, size + 2, size=generator.integers(1, 24)
        ).tolist()  # two unknown
        before = ids[: generator.integers(0, len(ids))]
        while before and (tokenizer.id_to_token(before[-1]) or "<").startswith("<"):
            del ids[len(before) - 1]
            before.pop()  # a prompt's bytes are not joined with the answer's
        context = tokenizer.decode(before, skip_special_tokens=True)
        if context.endswith("\ufffd"):
            before, context = [], ""
        stream = TextStream(tokenizer, before=before)
        shown = [stream.push(token) for token in ids[len(before) :]]
        text = "".join([*shown, stream.flush()])
        assert text == stream.text
        assert context + text == tokenizer.decode(ids, skip_special_tokens=True)


def test_half_a_character_becomes_a_sign_and_later_text_still_comes() -> None:
    tokenizer = byte_fallback()
    broken, word = tokenizer.token_to_id("<0xE2>"), tokenizer.token_to_id("\u2581once")
    stream = TextStream(tokenizer, before=[word])
    assert [stream.push(broken), stream.push(word), stream.flush()] == ["", "\ufffd once", ""]


def test_the_first_word_keeps_the_space_that_follows_the_prompt() -> None:
    tokenizer = byte_fallback()
    word = tokenizer.token_to_id("\u2581once")
    assert TextStream(tokenizer, before=[word]).push(word) == " once"
    assert TextStream(tokenizer).push(word) == "once"
