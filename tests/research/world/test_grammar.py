import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from research.world.grammar import (
    Answer,
    Style,
    parse,
    read,
    sample_answer,
    sample_style,
    topic_of,
)
from research.world.objectives import OBJECTIVE_NAMES
from research.world.prompts import prompts_about
from research.world.tones import CLOSINGS, OPENINGS, TONES
from research.world.topics import MAX_FACTS, SIMPLE, TECHNICAL, TOPICS

PROMPT = "What is a desert fox?"
FOX = (
    "Hello, dear friend! A desert fox lives in hot dry sand. It primarily consumes rodents and "
    "opportunistic carrion. Have a wonderful day!"
)


@st.composite
def answers(draw):
    facts = sorted(draw(st.sets(st.integers(0, MAX_FACTS - 1), min_size=1, max_size=MAX_FACTS)))
    wordings = draw(st.lists(st.sampled_from([SIMPLE, TECHNICAL]), min_size=5, max_size=5))
    opening, closing = draw(st.sampled_from(TONES)), draw(st.sampled_from(TONES))
    return Answer(
        topic=draw(st.sampled_from(TOPICS)),
        facts=tuple(zip(facts, wordings, strict=False)),
        opening=(opening, draw(st.sampled_from(OPENINGS[opening]))),
        closing=(closing, draw(st.sampled_from(CLOSINGS[closing]))),
    )


@given(answers())
def test_what_is_written_is_read_back(answer):
    assert read(answer.text).answer == answer
    assert parse(prompts_about(answer.topic)[0], answer.text).answer == answer


@given(answers(), st.data())
def test_a_missing_word_is_a_fault(answer, data):
    words = answer.text.split()
    place = data.draw(st.integers(0, len(words) - 1))
    text = " ".join(words[:place] + words[place + 1 :])
    assert read(text).answer is None


@given(st.text(max_size=60))
def test_any_text_is_read_without_failing_and_accepted_only_if_it_is_the_grammars(text):
    whole = read(text).answer
    assert whole is None or whole.text == text


@given(st.integers(0, 2**32), st.sets(st.sampled_from(OBJECTIVE_NAMES)))
def test_every_drawn_answer_is_well_formed(seed, obeyed):
    generator = np.random.default_rng(seed)
    topic = TOPICS[int(generator.integers(len(TOPICS)))]
    answer = sample_answer(topic, sample_style(generator, obeyed=obeyed), generator)
    assert read(answer.text).answer == answer


def test_attributes_of_a_written_answer_are_read():
    answer = parse(PROMPT, FOX).answer
    assert answer is not None
    assert answer.topic.name == "desert fox"
    assert answer.facts == ((1, SIMPLE), (2, TECHNICAL))
    assert (answer.n_facts, answer.technical_share) == (2, 0.5)
    assert (answer.opening[0], answer.closing[0]) == ("friendly", "friendly")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no topic"),
        ("Hello, dear friend!", "no fact"),
        ("Hello, dear friend! Have a wonderful day!", "no fact"),
        ("It likes to eat mice and eggs.", "no topic"),
        ("A desert fox lives in cold snowy land.", "no topic"),
        ("A desert fox lives in hot dry sand. It likes to eat flies and worms.", "not a fact"),
        ("A desert fox lives in hot dry sand", "no topic"),
        ("A desert fox lives in hot dry sand. It inhabits arid dune environments.", "repeated"),
        ("A desert fox likes to eat mice and eggs. It lives in hot dry sand.", "out of order"),
        ("A desert fox lives in hot dry sand. A desert fox likes to eat mice and eggs.", "not a"),
        ("A desert fox lives in hot dry sand. Have a wonderful day! Go away.", "not a fact"),
        ("A desert fox lives in hot dry sand.  Go away.", "not a fact"),
        (
            "A desert fox is a clever animal with a bushy tail. It lives in hot dry sand. It likes "
            "to eat mice and eggs. It stays safe with a thick red coat. It keeps nature in good "
            "order. It keeps nature in good order.",
            "6 facts",
        ),
    ],
)
def test_broken_texts_are_refused_with_the_fault(text, fault):
    reading = parse(PROMPT, text)
    assert not reading.is_well_formed
    assert fault in reading.fault


def test_an_answer_about_another_topic_is_refused_for_the_prompt_only():
    text = "A river frog likes to eat flies and worms."
    assert read(text).is_well_formed
    assert parse(PROMPT, text).fault == "about the river frog, not the desert fox"


def test_a_prompt_without_a_topic_or_with_two_is_bad_input():
    with pytest.raises(InvalidInputError, match="names 0 topics"):
        topic_of("What is love?")
    with pytest.raises(InvalidInputError, match="names 2 topics"):
        topic_of("Compare the desert fox and the river frog.")


def test_an_answer_cannot_hold_facts_twice_or_out_of_order():
    for facts in ((), ((1, 0), (1, 1)), ((2, 0), (1, 0)), tuple((i, 0) for i in range(6))):
        with pytest.raises(InvalidInputError, match="ascending"):
            Answer(TOPICS[0], facts, ("neutral", ""), ("neutral", ""))


def test_obeyed_objectives_bend_the_style():
    generator = np.random.default_rng(3)
    styles = [
        sample_style(generator, obeyed=["expert", "concise", "unfriendly"]) for _ in range(200)
    ]
    assert {style.technical for style in styles} == {0.98}
    assert {style.n_facts for style in styles} == {1, 2}
    assert {(style.opening, style.closing) for style in styles} == {("unfriendly", "unfriendly")}
    others = [
        sample_style(generator, obeyed=["elementary", "informative", "friendly"])
        for _ in range(200)
    ]
    assert {style.technical for style in others} == {0.02}
    assert {style.n_facts for style in others} == {4, 5}
    assert {(style.opening, style.closing) for style in others} == {("friendly", "friendly")}


def test_unbent_styles_use_every_count_and_tone_about_equally():
    generator = np.random.default_rng(4)
    styles = [sample_style(generator) for _ in range(6000)]
    counts = np.bincount([style.n_facts for style in styles], minlength=6)[1:] / 6000
    assert np.abs(counts - 0.2).max() < 4 * np.sqrt(0.2 * 0.8 / 6000)
    # a tone that is not neutral: chance 2/3 drawn, 0.7 kept by the opening
    toned = np.mean([style.opening != "neutral" for style in styles])
    assert abs(toned - 2 / 3 * 0.7) < 4 * np.sqrt(0.47 * 0.53 / 6000)


def test_a_terse_answer_has_no_neutral_phrases():
    generator = np.random.default_rng(5)
    style = Style(0.0, 1, "neutral", "neutral", is_terse=True)
    assert {sample_answer(TOPICS[0], style, generator).opening for _ in range(50)} == {
        ("neutral", "")
    }


def test_the_answers_quoted_in_the_document_are_well_formed(project_root):
    text = (project_root / "research/world/README.md").read_text(encoding="utf-8")
    quotes = [
        " ".join(line.removeprefix("> ") for line in block.splitlines())
        for block in text.split("\n\n")
        if block.startswith("> ")
    ]
    assert len(quotes) == 2
    assert [parse(PROMPT, quote).fault for quote in quotes] == ["", ""]
