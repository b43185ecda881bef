"""The simplex: checks, lattices, samples."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.core.errors import InvalidPreferenceError
from palate.core.simplex import lattice, require_simplex, sample_simplex, vector_from_mapping


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=8))
def test_shares_divided_by_their_sum_lie_on_the_simplex(shares: list[float]) -> None:
    point = require_simplex(np.array(shares) / sum(shares))
    assert abs(point.sum() - 1.0) < 1e-12
    assert (point >= 0).all()


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=12))
def test_a_checked_point_checked_again_is_the_same_to_the_last_bit(shares: list[float]) -> None:
    point = require_simplex(np.array(shares) / np.sum(shares))
    assert require_simplex(point).tolist() == point.tolist()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5, 0.6], "sums to 1.1"),
        ([1.2, -0.2], "negative"),
        ([float("nan"), 1.0], "not finite"),
        ([], "shape"),
        ([[0.5, 0.5]], "shape"),
    ],
)
def test_a_point_off_the_simplex_is_refused(values: list[float], words: str) -> None:
    with pytest.raises(InvalidPreferenceError, match=words):
        require_simplex(values)


def test_tiny_rounding_is_repaired() -> None:
    assert require_simplex([1.0 + 5e-7, -1e-10]).tolist() == [1.0, 0.0]


def test_names_become_a_vector_and_unknown_ones_are_refused() -> None:
    assert vector_from_mapping({"b": 1.0}, objectives=["a", "b"]).tolist() == [0.0, 1.0]
    with pytest.raises(InvalidPreferenceError, match="unknown objective 'c'"):
        vector_from_mapping({"c": 1.0}, objectives=["a", "b"])


@pytest.mark.parametrize(("d", "n"), [(1, 3), (2, 4), (3, 5), (4, 3)])
def test_a_lattice_has_all_points_once(d: int, n: int) -> None:
    points = lattice(n_objectives=d, denominator=n)
    assert points.shape == (comb(n + d - 1, d - 1), d)
    assert len(np.unique(points.round(9), axis=0)) == len(points)
    assert np.allclose(points.sum(axis=1), 1.0)
    assert points[0].tolist() == [1.0] + [0.0] * (d - 1)


def test_samples_depend_on_the_generator_alone() -> None:
    first, second = (
        sample_simplex(n_points=5, n_objectives=3, generator=np.random.default_rng(1))
        for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert np.allclose(first.sum(axis=1), 1.0)
