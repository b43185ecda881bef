"""Anchors: names, directions, and the laws of signed preferences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError, InvalidPreferenceError
from palate.training.anchors import (
    Anchor,
    AnchorSettings,
    make_anchors,
    objective_anchors,
)

NAMES = ("short", "kind", "safe")
rewards_in_range = st.lists(
    st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5
).map(np.array)
directions = (
    st.lists(st.floats(-1, 1), min_size=3, max_size=3)
    .filter(lambda values: sum(map(abs, values)) > 1e-3)
    .map(lambda values: np.array(values) / np.abs(values).sum())
)


def test_one_anchor_per_objective_gives_back_that_objectives_reward():
    rewards = np.array([[0.1, 0.5, 0.9], [0.3, 0.2, 0.0]])
    for column, anchor in enumerate(objective_anchors(NAMES)):
        assert anchor.name == NAMES[column]
        assert anchor.scalarise(rewards).tolist() == rewards[:, column].tolist()


def test_a_signed_anchor_rewards_the_lack_of_what_it_dislikes():
    anchor = Anchor("a", NAMES, (0.5, -0.3, 0.2))
    # 0.5 * 0.4 + 0.3 * (1 - 0.6) + 0.2 * 1.0 = 0.2 + 0.12 + 0.2
    assert anchor.scalarise(np.array([[0.4, 0.6, 1.0]])) == pytest.approx([0.52], abs=1e-12)
    assert anchor.is_signed


@given(rewards=rewards_in_range, direction=directions)
def test_scalarised_rewards_stay_in_range_and_equal_a_preference_over_doubled_objectives(
    rewards, direction
):
    anchor = Anchor("a", NAMES, tuple(direction))
    found = anchor.scalarise(rewards)
    doubled = np.hstack([rewards, 1 - rewards])
    shares = np.hstack([np.maximum(direction, 0), np.maximum(-direction, 0)])
    assert np.allclose(found, doubled @ shares, atol=1e-6)
    assert np.all((found >= -1e-9) & (found <= 1 + 1e-9))


@given(rewards=rewards_in_range, direction=directions)
def test_differences_between_texts_are_those_of_the_direction_itself(rewards, direction):
    found = Anchor("a", NAMES, tuple(direction)).scalarise(rewards)
    assert np.allclose(found - found[0], (rewards - rewards[0]) @ direction, atol=1e-6)


def sampled(kind: str, *, n: int, seed: int = 0) -> tuple[Anchor, ...]:
    settings = AnchorSettings(kind=kind, n_random=n, is_with_objectives=False)
    return make_anchors(settings, objectives=NAMES, seed=seed)


def test_anchors_survive_plain_data():
    for anchor in sampled("signed", n=4):
        again = Anchor.from_json(anchor.to_json(), objectives=NAMES)
        assert again.name == anchor.name
        assert np.allclose(again.direction, anchor.direction, atol=1e-15)


def test_random_anchors_have_length_one_and_signed_ones_both_signs():
    plain, signed = sampled("random", n=50, seed=1), sampled("signed", n=50, seed=1)
    for anchor in (*plain, *signed):
        assert np.abs(anchor.vector()).sum() == pytest.approx(1)
    assert not any(anchor.is_signed for anchor in plain)
    # each of the three signs is fair: all 50 without a minus has probability 8^-50
    assert np.mean([anchor.vector() < 0 for anchor in signed]) == pytest.approx(0.5, abs=0.15)


def test_the_same_seed_gives_the_same_anchors_and_axes_come_first():
    settings = AnchorSettings(kind="random", n_random=2)
    first, second = (make_anchors(settings, objectives=NAMES, seed=3) for _ in range(2))
    assert first == second
    assert [a.name for a in first] == [*NAMES, "random-000", "random-001"]
    assert first != make_anchors(settings, objectives=NAMES, seed=4)


def test_a_list_of_anchors_names_only_the_objectives_it_speaks_of():
    settings = AnchorSettings(kind="list", listed={"mild": {"kind": 0.75, "short": -0.25}})
    (anchor,) = make_anchors(settings, objectives=NAMES, seed=0)
    assert anchor.direction == (-0.25, 0.75, 0.0)


@pytest.mark.parametrize(
    "settings",
    [
        AnchorSettings(kind="list"),
        AnchorSettings(kind="random", is_with_objectives=False),
        AnchorSettings(kind="list", listed={"a": {"short": 0.4}}),
        AnchorSettings(kind="list", listed={"a": {"unknown": 1.0}}),
        AnchorSettings(kind="list", listed={"../a": {"short": 1.0}}),
        AnchorSettings(kind="list", listed={"base": {"short": 1.0}}),
        AnchorSettings(kind="list", listed={"a": {"short": float("nan")}}),
    ],
)
def test_anchors_that_make_no_sense_are_refused(settings):
    with pytest.raises(InvalidInputError):
        make_anchors(settings, objectives=NAMES, seed=0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"listed": {"a": {"short": 1.0}}}, "listed needs the kind list, .* is objectives"),
        ({"n_random": 5}, "n_random needs the kind random or signed"),
        ({"kind": "list", "n_random": 5}, "n_random needs the kind random or signed"),
        ({"kind": "signed", "concentration": 0.5}, "concentration needs the kind random"),
        ({"is_with_objectives": False}, "is_with_objectives needs the kind random or signed"),
    ],
)
def test_a_key_that_the_kind_of_anchors_would_ignore_is_refused(values, words):
    with pytest.raises(InvalidInputError, match=words):
        AnchorSettings.checked(values, source="the test")
    kind = {"kind": values.get("kind", "objectives")}
    stored = AnchorSettings.checked(kind, source="the test").model_dump(mode="json")
    AnchorSettings.checked(stored, source="the test")  # with every default


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1, 1.1])
def test_rewards_out_of_range_are_refused_with_the_objective_named(wrong):
    rewards = np.array([[0.5, 0.5, 0.5], [0.5, wrong, 0.5]])
    with pytest.raises(InvalidInputError, match="'kind'"):
        objective_anchors(NAMES)[0].scalarise(rewards)


def test_an_anchor_needs_one_entry_per_objective():
    with pytest.raises(InvalidPreferenceError, match="2 entries for 3"):
        Anchor("a", NAMES, (0.5, 0.5))
