"""Text from tokens: whole characters, and nothing past a stop string."""

from hypothesis import given, settings
from hypothesis import strategies as st

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
