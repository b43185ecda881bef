import pytest

from palate.rewards.sentences import (
    content_words,
    split_sentences,
    unbroken_share,
    whole_sentences,
    whole_share,
)

WHOLE = [
    "The sky is blue because air scatters short waves.",
    "Do you want to know more?",
    "It\u2019s 3.5 kilometres away, i.e. an hour on foot!",
    '"Come in," she said.',
    "Dr. Smith works for NASA in the U.S. as a physicist.",
    "In 1969 two people walked on the Moon (for about 2.5 hours).",
    "A well-known author wrote it \u2014 and it didn't sell.",
    "**Note:** you can use either/or here.",
    "It costs $1,500.",
    "Franklin D. Roosevelt lived in Washington, D.C. for years.",
    "A synonym for 'small' is 'little'.",
    "Our country needs to change in how it votes and our country needs to change in size.",
]
BROKEN = [
    "",
    "Yes.",
    "No, thanks",
    "I.m.turn. i.re.st.",
    "The sky is b.lue today.",
    "sky... wh.at is. it th.is now.",
    "Thhhhe skyyyy is blueeee todayyyy.",
    "xkcd bcdfg hjkl mnpq.",
    "s t r e t c h t h e w o r d s.",
    "Photosynthesis chlorophyll electron membrane glucose carbon dioxide oxygen energy cycle.",
    ". . . . .",
    "the the the the the the the the the.",
    "It goes on " + "and on to the next of the towns " * 9 + "again.",
    "a@b c#d e%f g&h.",
    "e.g. i.e. etc. e.g. i.e.",
]


@pytest.mark.parametrize("sentence", WHOLE)
def test_english_sentences_are_whole(sentence: str) -> None:
    assert whole_share(sentence) == 1.0
    assert len(whole_sentences(sentence)) == 1


@pytest.mark.parametrize("text", BROKEN)
def test_broken_text_has_no_whole_sentence(text: str) -> None:
    assert whole_sentences(text) == []
    assert whole_share(text) == 0.0


def test_markers_of_lists_are_no_text() -> None:
    text = "Steps:\n1. Wash the rice well.\n- Boil it for ten minutes.\n## Then you are done!"
    expected = ["Wash the rice well.", "Boil it for ten minutes.", "Then you are done!"]
    assert split_sentences(text) == ["Steps:", *expected]
    assert whole_sentences(text) == expected
    assert whole_share(text) == pytest.approx(13 / 14)


def test_the_last_sentence_that_was_cut_takes_its_own_words_only() -> None:
    assert whole_share("It rains here every day. So we all have to") == pytest.approx(5 / 10)


def test_the_unbroken_share_leaves_out_a_sentence_that_was_cut() -> None:
    assert unbroken_share("It rains here every day. So we all have to") == 1.0
    assert unbroken_share("It rains here every day. Iiii we all. So we") == pytest.approx(5 / 8)
    assert unbroken_share("So we all have to") == 0.0
    assert unbroken_share("") == 0.0


def test_what_was_said_before_counts_once() -> None:
    text = "It rains here every day. It rains here every night. We like rain. We like rain."
    assert whole_sentences(text) == ["It rains here every day.", "We like rain."]


def test_content_words_are_long_different_and_no_function_words() -> None:
    text = "The Rain would fall; rain and SNOW 12345 because there was a fog."
    assert content_words(text) == {"rain", "fall", "snow"}
