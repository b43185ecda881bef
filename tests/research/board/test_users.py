"""Users: those that come with the board, files of one's own, and how they are drawn."""

import json
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.core.files import read_jsonl
from research.board.draw import OBJECTIVES, draw_users, stated, weights, wordings
from research.board.users import SHAPES, USERS, WORDINGS, load_users


def test_the_first_24_of_the_shipped_users_have_every_shape_and_say_it_in_three_wordings() -> None:
    users = load_users(None, objectives=OBJECTIVES, n=24)
    shapes = [user.shape for user in users]
    assert {shape: shapes.count(shape) for shape in SHAPES} == {
        "drawn": 8,
        "sparse": 4,
        "uneven": 4,
        "conflicting": 4,
        "indifferent": 4,
    }
    for user in users:
        assert len({user.wordings[name] for name in WORDINGS}) == 3
        assert sum(user.preference.values()) == pytest.approx(1.0)
        assert sum(abs(value) for value in user.truth.values()) == pytest.approx(1.0, abs=1e-5)
    uneven = next(user for user in users if user.shape == "uneven")
    assert sorted(uneven.truth.values()) == [0.1, 0.2, 0.7]


def test_conflicts_are_of_both_kinds() -> None:
    users = load_users(None, objectives=OBJECTIVES, n=24)
    conflicting = [user.truth for user in users if user.shape == "conflicting"]
    is_signed = [min(truth.values()) < 0 for truth in conflicting]
    assert sorted(is_signed) == [False, False, True, True]
    for truth, signed in zip(conflicting, is_signed, strict=True):
        if not signed:
            first, second = (name for name, value in truth.items() if value == 0.35)
            assert OBJECTIVES.index(first) // 2 == OBJECTIVES.index(second) // 2


def test_the_truth_of_a_position_is_by_hand() -> None:
    position = np.array([1.0, -3.0, 0.5])  # simple, long, warm
    sizes = weights(position, shape="drawn", is_signed=False)
    assert sizes == pytest.approx(
        {"informative": 3 / 4.5, "elementary": 1 / 4.5, "friendly": 1 / 9}
    )
    assert weights(position, shape="sparse", is_signed=False) == {"informative": 1.0}
    assert weights(position, shape="conflicting", is_signed=True) == {
        "informative": 0.4,
        "elementary": 0.3,
        "unfriendly": -0.3,
    }


def test_sliders_hold_tenths_and_nothing_below_zero() -> None:
    truth = {"elementary": 0.66, "concise": 0.24, "friendly": -0.1}
    assert stated(truth, is_indifferent=False) == {"elementary": 0.7, "concise": 0.3}
    assert set(stated(truth, is_indifferent=True).values()) == {1 / 6}


def test_what_hardly_counts_is_not_put_into_words() -> None:
    said = wordings({"concise": 0.9, "friendly": 0.1}, variants=(0, 1, 0))
    assert said["instruction"] == "Be brief."
    said = wordings(dict.fromkeys(OBJECTIVES, 1 / 6), variants=(0, 0, 0))
    assert said["instruction"] == "Answer as you like."


def test_the_shipped_users_are_those_that_the_command_draws(shared_folder: Path) -> None:
    drawn = draw_users(shared_folder / "data" / "people" / "polis", n=200, seed=0)
    shipped = read_jsonl(USERS)
    for one, other in zip(drawn, shipped, strict=True):
        assert one["name"] == other["name"]
        assert one["wordings"] == other["wordings"]
        assert one["truth"] == pytest.approx(other["truth"], abs=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"truth": {"strange": 1.0}}, "the unknown objective 'strange'"),
        ({"truth": {"elementary": 0.4}}, "a length of 0.4"),
        ({"wordings": {"instruction": "Hm."}}, "no whole 'wordings'"),
        ({"name": "other"}, "Two users have the name 'other'"),
    ],
)
def test_a_user_who_does_not_fit_is_named(tmp_path: Path, change: dict, sentence: str) -> None:
    other = {
        "name": "other",
        "shape": "sparse",
        "truth": {"elementary": 1.0},
        "preference": {"elementary": 1.0},
        "wordings": dict.fromkeys(WORDINGS, "Hm."),
    }
    path = tmp_path / "users.jsonl"
    path.write_text(
        "".join(json.dumps(one) + "\n" for one in (other, {**other, "name": "a"} | change))
    )
    with pytest.raises(InvalidInputError, match=sentence):
        load_users(path, objectives=OBJECTIVES, n=2)


def test_more_users_than_the_file_holds_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="holds 200 users, but n_users is 201"):
        load_users(None, objectives=OBJECTIVES, n=201)
