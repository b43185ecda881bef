import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from palate.rewards.reward import RewardVector
from palate.rewards.rules import count_syllables, reading_ease, rule_from

RULES = {
    "brief": {"kind": "length", "low": 2, "high": 6, "prefer": "shorter"},
    "long": {"kind": "length", "unit": "characters", "low": 0, "high": 10, "prefer": "longer"},
    "hedged": {"kind": "words", "words": ["Perhaps", "maybe"], "most": 2},
    "unhedged": {"kind": "words", "words": ["perhaps"], "is_wanted": False},
    "sourced": {"kind": "pattern", "pattern": "https?://", "most": 2},
    "easy": {"kind": "readability", "low": 0, "high": 100},
    "concise": {
        "kind": "length",
        "low": 0,
        "high": 20,
        "prefer": "shorter",
        "whole_sentences": True,
    },
    "full": {
        "kind": "length",
        "low": 0,
        "high": 10,
        "prefer": "longer",
        "whole_sentences": True,
    },
    "simple": {"kind": "readability", "low": 0, "high": 100, "whole_sentences": True},
    "informative": {"kind": "content", "low": 0, "high": 4},
}


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        ("brief", "one two", 1.0),
        ("brief", "one two three", 0.75),
        ("brief", "one two three four five six seven", 0.0),
        ("long", "abcde", 0.5),
        ("long", "", 0.0),
        ("hedged", "Perhaps it is. Perhaps not. maybe", 1.0),
        ("hedged", "it may be, PERHAPS", 0.5),
        ("hedged", "perhapsing", 0.0),
        ("unhedged", "perhaps", 0.0),
        ("unhedged", "surely", 1.0),
        ("sourced", "see http://a and", 0.5),
        ("easy", "", 0.0),
        ("concise", "", 0.0),
        ("concise", "Yes", 0.0),
        ("concise", "So.so.so. no.no", 0.0),
        ("concise", "It is very cold.", 0.8),  # 4 of 20 words
        ("concise", "It is very cold. So you better stay", 0.3),  # 8 of 20, half of them whole
        ("full", "", 0.0),
        ("full", "word " * 20, 0.0),
        ("full", "It is very cold. So you better stay", 0.4),
        ("simple", "", 0.0),
        ("simple", "I.m.turn. i.re.st. I.go.on.", 0.0),
        ("simple", "It is. It is not a good day to", 0.0),
        ("simple", "It is a cat. We go", 1.0),
        ("informative", "apple bread cheese dates", 0.0),
        ("informative", "We sell apples and bread. We sell apples and bread too.", 0.75),
        ("informative", "They grow apples, bread, cheese and dates here.", 1.0),
    ],
)
def test_rules_are_worth_what_paper_and_pencil_say(name: str, answer: str, expected: float) -> None:
    reward = rule_from(RULES[name], objective=name)
    assert reward.score(["any prompt"], [answer]).tolist() == [expected]


def test_reading_ease_follows_flesch() -> None:
    # 6 words, 1 sentence, 6 syllables: 206.835 - 1.015 * 6 - 84.6 * 1
    assert reading_ease("The cat sat on the mat.") == pytest.approx(116.145)
    hard = "Interdisciplinary considerations necessitate organizational reconfiguration."
    assert reading_ease(hard) < 0


@pytest.mark.parametrize(
    ("word", "count"),
    [("cat", 1), ("table", 2), ("make", 1), ("happy", 2), ("idea", 2), ("the", 1), ("tree", 1)],
)
def test_syllables_are_runs_of_vowels_without_a_silent_e(word: str, count: int) -> None:
    # "idea" has three by the dictionary: runs of vowels are an approximation
    assert count_syllables(word) == count


@given(st.sampled_from(sorted(RULES)), st.text(max_size=80))
def test_every_rule_stays_in_the_unit_interval(name: str, answer: str) -> None:
    value = rule_from(RULES[name], objective=name).score(["p"], [answer])[0]
    assert 0.0 <= value <= 1.0


def test_rules_stand_in_a_reward_vector() -> None:
    vector = RewardVector(tuple(rule_from(RULES[name], objective=name) for name in RULES))
    scores = vector.score(["p", "q"], ["Perhaps.", "See http://x and http://y now"])
    assert scores.shape == (2, len(RULES))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kind": "lenght", "low": 1}, "'kind'.*lenght|lenght"),
        ({"kind": "length", "low": 5, "high": 5, "prefer": "longer"}, "is not below high"),
        ({"kind": "length", "low": 1, "high": 5}, "prefer"),
        ({"kind": "length", "low": 1, "high": 5, "prefer": "longer", "hi": 3}, "hi"),
        ({"kind": "pattern", "pattern": "("}, "not a regular expression"),
        ({"kind": "pattern", "pattern": "a{99999999999}"}, "not a regular expression"),
        ({"kind": "pattern", "pattern": 5000 * "(" + 5000 * ")"}, "not a regular expression"),
        ({"kind": "words", "words": []}, "words"),
        ({"kind": "words", "words": ["two words"]}, "'two words' is not one word"),
        ({"kind": "words", "words": ["a"], "most": 0}, "most"),
        ([], "'x' is wrong"),
    ],
)
def test_wrong_rules_are_refused_in_one_sentence(values: object, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        rule_from(values, objective="x")
    assert "\n" not in str(caught.value)


def test_the_fingerprint_tells_rules_apart() -> None:
    prints = {rule_from(values, objective="x").fingerprint for values in RULES.values()}
    assert len(prints) == len(RULES)
