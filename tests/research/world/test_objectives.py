from itertools import combinations

import pytest

from research.world.objectives import AXES, OBJECTIVE_NAMES, OBJECTIVES, USERS


def test_there_are_six_objectives_with_one_preference_sentence_each():
    assert OBJECTIVE_NAMES == (
        "elementary",
        "expert",
        "concise",
        "informative",
        "friendly",
        "unfriendly",
    )
    sentences = [objective.instruction for objective in OBJECTIVES]
    assert len(set(sentences)) == 6
    assert all(sentence.endswith(".") and sentence.count(".") == 1 for sentence in sentences)


def test_the_axes_share_out_the_objectives():
    assert [pole for poles in AXES.values() for pole in poles] == list(OBJECTIVES)


def test_the_eight_users_are_all_choices_of_one_pole_per_axis():
    assert len({user.name for user in USERS}) == 8
    wanted = {frozenset(objective.name for objective in user.objectives) for user in USERS}
    every_three = {frozenset(three) for three in combinations(OBJECTIVE_NAMES, 3)}
    opposites = [{low.name, high.name} for low, high in AXES.values()]
    assert wanted == {
        three for three in every_three if not any(pair <= three for pair in opposites)
    }


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.name)
def test_a_user_wants_a_third_of_each_of_three_objectives(user):
    shares = dict(zip(user.preference.objectives, user.preference.shares, strict=True))
    assert tuple(shares) == OBJECTIVE_NAMES
    for name, share in shares.items():
        is_wanted = name in {objective.name for objective in user.objectives}
        assert share == pytest.approx(1 / 3 if is_wanted else 0.0)
    for objective in user.objectives:
        assert objective.instruction in user.instruction
        assert objective.name in user.label
