from research.world.facts import CATEGORIES
from research.world.tones import CLOSINGS, OPENINGS
from research.world.topics import SIMPLE, TOPICS
from research.world.words import COLD_WORDS, WARM_WORDS, marked_words, words_of


def test_words_are_lower_case_and_without_signs():
    assert words_of("What a great question! It eats mice.") == [
        "what", "a", "great", "question", "it", "eats", "mice",
    ]  # fmt: skip


def test_every_sentence_has_marked_words_of_its_own_wording_only():
    simple, technical = marked_words()
    for topic in TOPICS:
        for sentence, (_, wording, _) in topic.sentences.items():
            own, other = (simple, technical) if wording == SIMPLE else (technical, simple)
            said = set(words_of(sentence))
            assert said & own, sentence
            assert not said & other, sentence


def test_topic_names_and_tone_sentences_hold_no_marked_word():
    simple, technical = marked_words()
    names = {word for category in CATEGORIES for word in (*category.heads, *category.variants)}
    tones = {
        word
        for sentences in (*OPENINGS.values(), *CLOSINGS.values())
        for sentence in sentences
        for word in words_of(" ".join(sentence))
    }
    assert not (simple | technical) & (names | tones)


def test_a_tone_sentence_carries_its_own_tone_and_no_other():
    for sentences in (OPENINGS, CLOSINGS):
        for tone, options in sentences.items():
            for sentence in options:
                warm = len(WARM_WORDS.intersection(words_of(sentence)))
                cold = len(COLD_WORDS.intersection(words_of(sentence)))
                assert (warm > 0, cold > 0) == (tone == "friendly", tone == "unfriendly"), sentence


def test_every_tone_word_is_used():
    said = {
        word
        for sentences in (*OPENINGS.values(), *CLOSINGS.values())
        for sentence in sentences
        for word in words_of(sentence)
    }
    assert said >= WARM_WORDS | COLD_WORDS
