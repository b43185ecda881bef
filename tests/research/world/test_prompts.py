import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from research.world.documents import sample_document
from research.world.grammar import topic_of
from research.world.prompts import format_prompt, held_out_prompts, prompts_about, train_prompts
from research.world.topics import HELD_OUT_TOPICS, TOPICS, TRAIN_TOPICS


def test_there_are_enough_different_prompts():
    assert len(set(train_prompts())) == len(train_prompts()) == 288
    assert len(set(held_out_prompts())) == len(held_out_prompts()) == 96


def test_held_out_prompts_ask_about_held_out_topics_only():
    asked = {topic_of(prompt) for prompt in train_prompts()}
    held_out = {topic_of(prompt) for prompt in held_out_prompts()}
    assert asked == set(TRAIN_TOPICS)
    assert held_out == set(HELD_OUT_TOPICS)
    assert asked.isdisjoint(held_out)
    assert set(train_prompts()).isdisjoint(held_out_prompts())


def test_no_pre_training_document_names_a_held_out_topic():
    generator = np.random.default_rng(0)
    names = [topic.name for topic in HELD_OUT_TOPICS]
    for _ in range(3000):
        document = sample_document(generator)
        text = (document.prompt + document.answer).lower()
        assert not [name for name in names if name in text]


def test_any_short_stretch_of_prompts_covers_the_categories():
    for prompts in (train_prompts(), held_out_prompts()):
        assert len({topic_of(prompt).category.name for prompt in prompts[:8]}) == 4


def test_every_way_of_asking_names_the_topic():
    for topic in TOPICS:
        assert len(set(prompts_about(topic))) == 10
        assert {topic_of(prompt) for prompt in prompts_about(topic)} == {topic}


def test_the_wish_stands_before_the_question():
    assert format_prompt("Why?", "Keep it short.") == (
        "Wish: Keep it short.\nQuestion: Why?\nAnswer:\n"
    )
    assert format_prompt("Why?", "") == format_prompt("Why?") == "Question: Why?\nAnswer:\n"


@pytest.mark.parametrize(
    ("prompt", "instruction", "message"),
    [(" ", None, "empty"), ("a\nb", None, "prompt .* line break"), ("a", "b\nc", "instruction")],
)
def test_prompts_that_break_the_layout_are_bad_input(prompt, instruction, message):
    with pytest.raises(InvalidInputError, match=message):
        format_prompt(prompt, instruction)
