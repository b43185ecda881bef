"""Monitors: numbers by paper and pencil, and a sentence for each threshold that is crossed."""

from dataclasses import replace

import numpy as np
import pytest

from palate.mixture.monitors import Spread, Summary, spread_of, warnings_of

EXPERTS = ("warm", "brief", "exact")
FINE = Summary(
    n_answers=10,
    reward=0.6,
    wins=(0.6, 0.55, None),
    mean_shares=(0.5, 0.5, None),
    entropy_fraction=0.9,
    mean_entropy=0.4,
    adaptivity=0.2,
    switch_rate=0.1,
    disagree_fraction=0.3,
    ended_fraction=1.0,
    tokens=30.0,
    unsaturated_fraction=1.0,
    n_floored=0,
)


def said(**changes) -> list[str]:
    return warnings_of(replace(FINE, **changes), experts=EXPERTS, uniform=FINE)


def test_nothing_is_said_when_all_is_well() -> None:
    assert said() == []
    quiet = Spread(entropy_ratio=1.0, diversity=0.5)
    assert warnings_of(FINE, experts=EXPERTS, spread=quiet, density_gap=1e-3) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"entropy_fraction": 0.19}, "collapsed"),
        ({"adaptivity": 0.019}, "static"),
        ({"disagree_fraction": 0.049}, "agree on all but 4.9%"),
        ({"mean_shares": (0.009, 0.991, None)}, "'warm' is dead"),
        ({"wins": (0.54, 0.55, None)}, "'warm' is sacrificed"),
        ({"tokens": 36.1}, "mean length drifted from 30.00"),
        ({"tokens": 23.9}, "mean length drifted from 30.00"),
        ({"ended_fraction": 0.79}, "share of ended answers drifted"),
    ],
)
def test_each_threshold_has_its_sentence_and_no_other(changes, words: str) -> None:
    (sentence,) = said(**changes)
    assert words in sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"entropy_fraction": 0.21},
        {"adaptivity": 0.021},
        {"disagree_fraction": 0.051},
        {"mean_shares": (0.011, 0.989, None)},
        {"wins": (0.551, 0.55, None)},
        {"tokens": 35.9},
    ],
)
def test_just_inside_a_threshold_nothing_is_said(changes) -> None:
    assert said(**changes) == []


@pytest.mark.parametrize(("ratio", "word"), [(0.49, "peaked"), (1.21, "flat")])
def test_a_mixture_of_strange_entropy_is_named(ratio: float, word: str) -> None:
    (sentence,) = warnings_of(FINE, experts=EXPERTS, spread=Spread(ratio, 0.5))
    assert f"too {word}" in sentence


def test_a_density_gap_is_named_with_its_size() -> None:
    (sentence,) = warnings_of(FINE, experts=EXPERTS, density_gap=2e-3)
    assert "2.0e-03 nats" in sentence


def test_the_spread_of_two_experts_by_paper_and_pencil() -> None:
    with np.errstate(divide="ignore"):
        experts = np.log([[[0.5, 0.5, 0.0, 0.0]], [[0.25, 0.75, 0.0, 0.0]]])
    experts = np.maximum(experts, -700.0)
    shares = np.array([[0.5, 0.5]])
    reference = np.log([[0.25, 0.25, 0.25, 0.25]])
    found = spread_of(experts, shares, reference)
    mixed = -(0.375 * np.log(0.375) + 0.625 * np.log(0.625))
    assert found.entropy_ratio == pytest.approx(mixed / np.log(4.0))
    forth = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    back = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    assert found.diversity == pytest.approx((forth + back) / 2)


def test_experts_that_are_the_same_have_no_diversity() -> None:
    table = np.log(np.full((2, 3, 4), 0.25))
    shares = np.full((3, 2), 0.5)
    found = spread_of(table, shares, table[0])
    assert found.diversity == pytest.approx(0.0, abs=1e-12)
    assert found.entropy_ratio == pytest.approx(1.0)
