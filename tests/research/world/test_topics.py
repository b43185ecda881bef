import re

from research.world.facts import CATEGORIES
from research.world.topics import (
    HELD_OUT_TOPICS,
    MAX_FACTS,
    SIMPLE,
    TECHNICAL,
    TOPICS,
    TRAIN_TOPICS,
)
from research.world.words import COLD_WORDS, WARM_WORDS, words_of


def topic_named(name):
    return next(topic for topic in TOPICS if topic.name == name)


def test_a_fact_is_told_in_simple_and_in_technical_words():
    fox = topic_named("arctic fox")
    assert (
        fox.sentence(1, wording=SIMPLE, is_first=True) == "An arctic fox lives in cold snowy land."
    )
    assert (
        fox.sentence(1, wording=TECHNICAL, is_first=True)
        == "The arctic fox inhabits polar tundra environments."
    )
    assert fox.sentence(2, wording=SIMPLE, is_first=False) == "It likes to eat mice and eggs."


def test_names_of_topics_are_all_different_and_none_is_part_of_another():
    names = [topic.name for topic in TOPICS]
    assert len(set(names)) == len(names) == 4 * 6 * 8
    assert not [(a, b) for a in names for b in names if a != b and a in b]


def test_training_and_held_out_topics_share_no_topic_but_every_word():
    train = {topic.name for topic in TRAIN_TOPICS}
    held_out = {topic.name for topic in HELD_OUT_TOPICS}
    assert train.isdisjoint(held_out)
    assert (len(train), len(held_out)) == (144, 48)
    for category in CATEGORIES:
        known = {
            word
            for topic in TRAIN_TOPICS
            if topic.category is category
            for word in topic.name.split()
        }
        assert known == {*category.heads, *category.variants}


def test_each_head_and_each_variant_is_held_out_in_at_least_one_topic_of_its_category():
    for category in CATEGORIES:
        held_out = [topic for topic in HELD_OUT_TOPICS if topic.category is category]
        assert {topic.head for topic in held_out} == set(category.heads)
        assert {topic.variant for topic in held_out} == set(category.variants)


def test_every_sentence_of_a_topic_is_different_plain_and_of_one_meaning():
    for topic in TOPICS:
        assert len(topic.sentences) == MAX_FACTS * 2 * 2
        for sentence in topic.sentences:
            assert re.fullmatch(r"(It|[A-Z][a-z]*( [a-z]+)*)( [a-z]+)+\.", sentence), sentence


def test_no_fact_carries_a_tone():
    spoken = {word for topic in TOPICS for text in topic.sentences for word in words_of(text)}
    assert not spoken & (WARM_WORDS | COLD_WORDS)
