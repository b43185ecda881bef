import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from research.world.gold import gold_reward, gold_rewards
from research.world.grammar import sample_answer, sample_style
from research.world.objectives import OBJECTIVE_NAMES
from research.world.topics import TOPICS

SHORT = "A desert fox lives in hot dry sand."
MIXED = "What a great question! A desert fox lives in hot dry sand. The words are over."


def rewards(text):
    return dict(zip(OBJECTIVE_NAMES, gold_rewards([text])[0], strict=True))


def test_one_short_simple_neutral_fact():
    # 8 words, fully concise; marked: lives, hot, dry, sand; one fact
    assert rewards(SHORT) == {
        "elementary": 1.0,
        "expert": 0.0,
        "concise": 1.0,
        "informative": 0.0,
        "friendly": 0.0,
        "unfriendly": 0.0,
    }


def test_two_facts_of_both_wordings_in_a_warm_tone():
    # marked simple: lives hot dry sand (4); technical: primarily consumes rodents opportunistic
    # carrion (5). 3 + 8 + 7 + 4 = 22 words. Warm: hello dear friend wonderful.
    text = (
        "Hello, dear friend! A desert fox lives in hot dry sand. It primarily consumes rodents and "
        "opportunistic carrion. Have a wonderful day!"
    )
    assert rewards(text) == pytest.approx(
        {
            "elementary": 4 / 9,
            "expert": 5 / 9,
            "concise": (50 - 22) / (50 - 8),
            "informative": 1 / 4,
            "friendly": 1.0,
            "unfriendly": 0.0,
        }
    )


def test_a_warm_start_and_a_cold_end_cancel():
    # warm: great (1); cold: go away (1)
    text = f"What a great question! {SHORT} Go away."
    assert rewards(text)["friendly"] == rewards(text)["unfriendly"] == 0.0
    # cold: stop wasting stupid (3), away (1)
    colder = f"Stop wasting my time with stupid questions. {SHORT} Go away."
    assert rewards(colder)["unfriendly"] == 1.0
    assert rewards(f"{SHORT} Go away.")["unfriendly"] == 0.25


def test_five_technical_facts_are_fully_informative_and_expert():
    text = (
        "The desert fox is classified as a medium carnivorous canid. It inhabits arid dune "
        "environments. It primarily consumes rodents and opportunistic carrion. It maintains "
        "homeostasis through an insulating pelage. It regulates trophic equilibrium within its "
        "ecosystem."
    )
    found = rewards(text)
    assert found["informative"] == found["expert"] == 1.0
    assert found["elementary"] == 0.0
    assert found["concise"] == pytest.approx((50 - 36) / 42)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sand",
        MIXED,
        "great great great great friend friend friend",
        "A desert fox lives in hot dry sand. It lives in hot dry sand.",
        "A desert fox lives in hot dry sand lives in hot dry sand.",
        f"{SHORT} Have a wonderful day! Have a wonderful day!",
    ],
)
def test_broken_text_buys_nothing(text):
    assert np.array_equal(gold_rewards([text]), np.zeros((1, 6)))


@given(st.integers(0, 2**32))
def test_rewards_lie_between_zero_and_one_and_opposites_never_sum_above_one(seed):
    generator = np.random.default_rng(seed)
    topic = TOPICS[int(generator.integers(len(TOPICS)))]
    found = rewards(sample_answer(topic, sample_style(generator), generator).text)
    assert all(0.0 <= value <= 1.0 for value in found.values())
    assert found["elementary"] + found["expert"] == pytest.approx(1.0)
    assert found["friendly"] * found["unfriendly"] == 0.0


def test_each_reward_has_head_room_and_spread_over_the_worlds_own_answers():
    generator = np.random.default_rng(0)
    texts = [
        sample_answer(
            TOPICS[int(generator.integers(len(TOPICS)))], sample_style(generator), generator
        ).text
        for _ in range(2000)
    ]
    found = gold_rewards(texts)
    assert np.all(found.mean(axis=0) <= 0.65)
    assert np.all(found.std(axis=0) >= 0.2)


def test_one_column_is_one_objective_and_no_texts_give_no_rows():
    assert gold_reward("informative", [SHORT, MIXED]).tolist() == [0.0, 0.0]
    assert gold_reward("concise", [SHORT]).tolist() == [1.0]
    assert gold_rewards([]).shape == (0, 6)
    with pytest.raises(InvalidInputError, match="'polite' is unknown"):
        gold_reward("polite", [SHORT])
