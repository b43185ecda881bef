from palate.rewards.texts import count_sentences, messages_of, turns_of, words_of


def test_a_transcript_falls_into_turns() -> None:
    prompt = "Human: Hi\nthere\n\nAssistant: Hello.\n\nHuman: Why?"
    assert turns_of(prompt) == [
        {"role": "user", "content": "Hi\nthere"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Why?"},
    ]


def test_a_prompt_without_speakers_is_one_turn() -> None:
    assert turns_of("Ask a Human: why?") == [{"role": "user", "content": "Ask a Human: why?"}]
    assert turns_of("") == [{"role": "user", "content": ""}]
    mixed = "Read this.\n\nHuman: hi"  # does not begin with a speaker
    assert turns_of(mixed) == [{"role": "user", "content": mixed}]


def test_the_place_of_the_answer_is_no_turn() -> None:
    assert turns_of("\n\nHuman: Why?\n\nAssistant:") == [{"role": "user", "content": "Why?"}]


def test_only_a_transcript_is_read_as_a_conversation() -> None:
    system, user = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}
    assert messages_of("System: Be kind.\n\nHuman: Why?") == [system, user]
    assert messages_of("Human: Why?") == [user]
    assert messages_of("Ask a Human: why?") == "Ask a Human: why?"


def test_words_and_sentences_are_counted_by_hand() -> None:
    assert words_of("It's 2 Ünits!") == ["it", "s", "2", "ünits"]
    assert [count_sentences(text) for text in ("", "a", "a. b?! c...")] == [1, 1, 3]
