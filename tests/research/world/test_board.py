"""Of each seed of the small world only what the methods need is built, the library first."""

import pytest

from palate.evaluate.suite import DEFAULT_METHODS, Suite
from palate.mixture.wording import MixtureRequest, Wording
from palate.models.load import load_base
from research.world.board import (
    SHAPES,
    Libraries,
    world_libraries,
    world_parts,
    world_users,
)
from research.world.objectives import OBJECTIVE_NAMES, OBJECTIVES, USERS
from research.world.prompts import base_folder


@pytest.mark.parametrize(
    ("methods", "parts"),
    [
        (("base", "soup"), {"library"}),
        (("base", "mixture"), {"library", "controller"}),
        (("base", "mixture+best-of-2"), {"library", "controller"}),
        (("base", "mixture-even"), {"library"}),
        (("base", "bespoke"), {"library", "bespoke"}),
        (DEFAULT_METHODS, {"library", "controller", "conditioned"}),
    ],
)
def test_parts_follow_from_the_methods(tmp_path, methods, parts):
    suite = Suite(methods=methods)
    found = world_parts(suite)
    assert next(iter(found)) == "library"
    assert set(found) == parts
    assert all(needs == ("library",) for part, needs in found.items() if part != "library")
    folders = world_libraries(suite, work=tmp_path)
    assert (folders.bespoke is not None) == ("bespoke" in parts)
    assert (folders.conditioned is not None) == ("conditioned" in parts)


def test_a_folder_that_is_not_needed_is_not_there(tmp_path):
    assert Libraries(tmp_path) == Libraries(tmp_path, None, None)


def test_eight_tastes_in_three_shapes_are_24_users_in_8_clusters():
    users = world_users()
    assert len(users) == len({user.name for user in users}) == 24
    assert {user.cluster for user in users} == {user.name for user in USERS}
    by_name = {user.name: user for user in users}
    first = USERS[0]
    words, amount, tone = (objective.name for objective in first.objectives)
    assert by_name[first.name].preference == pytest.approx(
        dict.fromkeys((words, amount, tone), 1 / 3)
    )
    assert by_name[f"{first.name} 70/20/10"].preference == {words: 0.7, amount: 0.2, tone: 0.1}
    assert by_name[f"{first.name} two"].preference == {words: 0.5, amount: 0.5}
    for user in users:
        assert sum(user.preference.values()) == pytest.approx(1.0)
        assert user.shape in SHAPES


def test_a_user_of_even_shares_is_put_into_the_same_words_by_all_methods_that_read_words():
    base = load_base(str(base_folder()))
    wording = Wording(base, tuple(objective.instruction for objective in OBJECTIVES), "full")
    for user, user in zip(world_users(), USERS, strict=False):
        strengths = tuple(user.preference.get(name, 0.0) for name in OBJECTIVE_NAMES)
        assert wording.preference(MixtureRequest("any", strengths)) == user.instruction
