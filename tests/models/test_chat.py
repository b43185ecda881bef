"""Text as a model reads it."""

from dataclasses import replace

import pytest

from palate.core.errors import InvalidInputError
from palate.models.chat import encode_answer, encode_prompt, format_messages
from palate.models.load import Base, load_base

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"


@pytest.fixture
def chatty(base_folder) -> Base:
    loaded = load_base(base_folder)
    loaded.tokenizer.chat_template = TEMPLATE
    return replace(loaded)


def test_without_a_template_text_is_used_as_it_is(base: Base) -> None:
    assert format_messages(base, "Why?") == "Why?"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    assert format_messages(base, messages) == "Hi\n\nYes?"


def test_a_template_decides_where_there_is_one(chatty: Base) -> None:
    assert format_messages(chatty, "Why?") == "<user>Why?<assistant>"
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]
    assert format_messages(chatty, messages) == "<system>Be kind.<user>Why?<assistant>"


def test_an_answers_tokens_follow_the_prompts(base: Base) -> None:
    prompt, answer = "Why?", " So."
    ids = encode_answer(base, prompt, answer, is_ended=True)
    assert ids[-1] == base.tokenizer.eos_token_id
    assert base.tokenizer.decode(ids[:-1]) == answer
    assert encode_answer(base, prompt, answer, is_ended=False) == ids[:-1]
    assert encode_prompt(base, "") == [base.tokenizer.bos_token_id]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "no messages"),
        ([{"role": "robot", "content": "x"}], "'robot' is unknown"),
        ([{"role": "user", "content": None}], "no 'content' that is text"),
    ],
)
def test_messages_that_cannot_be_read_are_refused(base: Base, messages, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        format_messages(base, messages)
