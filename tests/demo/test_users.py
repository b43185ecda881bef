"""Who asks the question."""

import pytest

from palate.demo.report import NAMED, demo_users

SIX = ("elementary", "expert", "concise", "informative", "friendly", "unfriendly")


def test_a_library_of_the_six_objectives_is_asked_by_the_eight_with_names() -> None:
    assert demo_users(SIX) == NAMED


@pytest.mark.parametrize(
    "objectives", [("a",), ("a", "b", "c"), ("concise", "safe", "kind", "odd")]
)
def test_other_objectives_have_users_who_want_one_to_three_of_them(objectives) -> None:
    users = demo_users(objectives)
    assert len(users) == min(8, 2 ** len(objectives) - 1)
    assert len({user.name for user in users}) == len(users)
    for user in users:
        assert set(user.preference) <= set(objectives)
        assert 1 <= len(user.preference) <= 3
        assert sum(user.preference.values()) == pytest.approx(1.0)
