"""Monitors: numbers by paper and pencil, and a sentence for each threshold that is crossed."""

from dataclasses import replace

import pytest

from palate.mixture.monitors import Summary, warnings_of

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


def warnings(*, density_gap: float = 1e-3, **changes) -> list[str]:
    summary = replace(FINE, **changes)
    return warnings_of(summary, experts=EXPERTS, uniform=FINE, density_gap=density_gap)


def test_nothing_is_said_when_all_is_well() -> None:
    assert warnings() == []


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
    (sentence,) = warnings(**changes)
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
    assert warnings(**changes) == []


def test_a_density_gap_is_named_with_its_size() -> None:
    (sentence,) = warnings(density_gap=2e-3)
    assert "2.0e-03 nats" in sentence
