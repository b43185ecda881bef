"""`methods.json` as a table: interpolation, bounds, the minimax choice."""

import numpy as np
import pytest
from scipy.stats import t as student

from palate.core.types import Interval
from palate.library.method_table import MethodRow, MethodTable


def row(method: str, gains: list[float], *, passes: float = 1.0, error: float = 0.1) -> MethodRow:
    """Three grid points of two objectives: (1, 0), (1/2, 1/2), (0, 1)."""
    values = np.array(gains)
    points = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    # rewards of which `w @ rewards` is the gain
    rewards = points * values[:, None] / (points**2).sum(axis=1, keepdims=True)
    return MethodRow(method, 1, passes, values, np.full(3, error), rewards)


def table(*rows: MethodRow) -> MethodTable:
    return MethodTable(("a", "b"), denominator=2, n_prompts=9, rows=rows)


def utility(measured: MethodTable, method: str, preference: np.ndarray) -> Interval | None:
    own = measured.row(method)
    return None if own is None else measured.expected(own, preference[None, :])


def test_between_grid_points_the_gain_is_barycentric_and_the_error_the_largest() -> None:
    one = row("soup", [0.4, 0.0, 0.2])
    one.standard_errors[1] = 0.2
    found = utility(table(one), "soup", np.array([0.75, 0.25]))
    assert found is not None
    assert found.estimate == pytest.approx(0.2)
    half = student.ppf(0.975, df=8) * 0.2
    assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half))
    at_corner = utility(table(one), "soup", np.array([0.0, 1.0]))
    assert at_corner is not None
    assert at_corner.estimate == pytest.approx(0.2)
    assert at_corner.estimate - at_corner.low == pytest.approx(student.ppf(0.975, df=8) * 0.1)


def test_predictions_are_ordered_by_the_lower_bound_within_the_passes() -> None:
    found = table(
        row("sure", [0.3] * 3, error=0.01),
        row("unsure", [0.4] * 3, error=0.2),
        row("dear", [0.9] * 3, passes=4.0),
    )
    names = [one.row.method for one in found.predictions(np.array([[0.5, 0.5]]), max_passes=1.5)]
    assert names == ["sure", "unsure"]
    names = [one.row.method for one in found.predictions(np.array([[0.5, 0.5]]), max_passes=4)]
    assert names[0] == "dear"


def test_a_beliefs_utility_is_the_mean_over_its_draws() -> None:
    one = table(row("soup", [0.4, 0.0, 0.2]))
    draws = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = one.expected(one.rows[0], draws)
    assert found is not None
    assert found.estimate == pytest.approx(0.3)


def test_a_preference_that_was_not_measured_has_no_utility() -> None:
    one = row("soup", [0.4, np.nan, 0.2])
    assert utility(table(one), "soup", np.array([0.75, 0.25])) is None
    assert utility(table(one), "soup", np.array([1.0, 0.0])) is not None
    assert utility(table(one), "other", np.array([1.0, 0.0])) is None


def test_with_nothing_known_the_largest_regret_is_least() -> None:
    """By hand: serving the corner policies costs the other corner 0.4, the middle costs 0.2."""
    points = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    rewards = np.array([[0.4, 0.0], [0.2, 0.2], [0.0, 0.4]])
    gains = (points * rewards).sum(axis=1)
    soup = MethodRow("soup", 1, 1.0, gains, np.zeros(3), rewards)
    base = MethodRow("base", 1, 1.0, np.zeros(3), np.zeros(3), np.zeros((3, 2)))
    choice = table(base, soup).minimax(max_passes=1.5)
    assert choice is not None
    chosen, point, regret = choice
    assert (chosen.method, point) == ("soup", 1)
    assert regret == pytest.approx(0.2)
    assert table(MethodRow("dear", 1, 4.0, gains, gains, rewards)).minimax(max_passes=1) is None
