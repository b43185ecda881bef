import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from palate.core.simplex import lattice
from palate.portfolio import gap as gap_module
from palate.portfolio.gap import (
    additive_gap,
    least_best_value,
    mixture_bound,
    multiplicative_gap,
    program_gap,
)


def random_case(seed: int, d: int, k: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((k, d)), rng.random((n, d)) * 1.1


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 8), st.integers(1, 12))
def test_vertices_and_linear_programs_agree(seed, d, k, n):
    members, rows = random_case(seed, d, k, n)
    by_vertices = additive_gap(members=members, rows=rows)
    by_programs = max(program_gap(members=members, row=row).value for row in rows)
    assert by_vertices.rule == "vertices"
    assert by_vertices.value == pytest.approx(by_programs, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_a_dense_lattice_never_exceeds_the_gaps_and_the_worst_preference_attains_them(seed, d):
    members, rows = random_case(seed, d, 4, 6)
    users = lattice(n_objectives=d, denominator={2: 200, 3: 40, 4: 14}[d])
    best, worth = (users @ rows.T).max(axis=1), (users @ members.T).max(axis=1)
    found = additive_gap(members=members, rows=rows)
    assert np.max(best - worth) <= found.value + 1e-12
    attained = np.max(rows @ found.preference) - np.max(members @ found.preference)
    assert attained == pytest.approx(found.value, abs=1e-9)
    share = multiplicative_gap(members=members, rows=rows)
    assert np.max(1 - worth / best) <= share.value + 1e-12
    attained = 1 - np.max(members @ share.preference) / np.max(rows @ share.preference)
    assert max(attained, 0.0) == pytest.approx(share.value, abs=1e-8)


def test_the_gap_of_two_unit_members_is_that_of_paper_and_pencil():
    # at (1/2, 1/2) members are worth 1/2 and the row 0.9
    members, row = np.eye(2), np.array([[0.9, 0.9]])
    found = additive_gap(members=members, rows=row)
    assert found.value == pytest.approx(0.4, abs=1e-12)
    np.testing.assert_allclose(found.preference, [0.5, 0.5], atol=1e-9)
    np.testing.assert_allclose(found.mixture, [0.5, 0.5], atol=1e-9)
    assert multiplicative_gap(members=members, rows=row).value == pytest.approx(4 / 9, abs=1e-9)


def test_the_mixture_proves_the_gap_by_arithmetic():
    members, rows = random_case(5, 4, 6, 20)
    found = additive_gap(members=members, rows=rows)
    assert np.all(found.mixture >= 0)
    assert found.mixture.sum() == pytest.approx(1.0, abs=1e-12)
    proven = mixture_bound(members=members, row=rows[found.row], mixture=found.mixture)
    assert proven == found.value
    uniform = mixture_bound(members=members, row=rows[found.row], mixture=np.full(6, 1 / 6))
    assert uniform >= found.value - 1e-12


@pytest.mark.parametrize(("d", "k"), [(2, 3), (4, 7), (6, 8)])
def test_screening_many_rows_gives_what_pricing_all_of_them_gives(d, k):
    rng = np.random.default_rng(d)
    members = rng.random((k, d))
    rows = rng.random((30_000, d))
    found = additive_gap(members=members, rows=rows)
    corners = gap_module.corner_preferences(members)
    losses = (corners @ rows.T).max(axis=1) - (corners @ members.T).max(axis=1)
    assert found.value == pytest.approx(losses.max(), abs=1e-12)


def test_too_many_corners_fall_back_to_programs_and_say_so():
    rng = np.random.default_rng(0)
    members = rng.random((30, 16))
    found = additive_gap(members=members, rows=rng.random((3, 16)))
    assert found.rule == "programs"


def test_qhull_failing_its_checks_falls_back_to_programs(monkeypatch):
    members, rows = random_case(1, 3, 4, 5)
    expected = additive_gap(members=members, rows=rows).value

    def broken(values):
        raise gap_module.NotConvergedError("no")

    monkeypatch.setattr(gap_module, "corner_preferences", broken)
    found = additive_gap(members=members, rows=rows)
    assert found.rule == "programs"
    assert found.value == pytest.approx(expected, abs=1e-9)


def test_members_among_the_rows_lose_nothing_to_themselves():
    members, _ = random_case(2, 3, 5, 1)
    assert additive_gap(members=members, rows=members).value == pytest.approx(0.0, abs=1e-12)
    assert multiplicative_gap(members=members, rows=members).value == pytest.approx(0, abs=1e-12)
    worse = additive_gap(members=members, rows=members - 0.1)
    assert worse.value == pytest.approx(-0.1, abs=1e-12)
    assert multiplicative_gap(members=members, rows=members - 0.1).value == 0.0


def test_shifting_everything_moves_the_multiplicative_gap_only():
    members, rows = random_case(3, 3, 4, 9)
    before, after = (additive_gap(members=members + b, rows=rows + b).value for b in (0.0, 2.5))
    assert before == pytest.approx(after, abs=1e-12)
    low, high = (multiplicative_gap(members=members + b, rows=rows + b).value for b in (2.5, 0.0))
    assert low < high


def test_a_best_value_below_zero_has_no_multiplicative_gap():
    members = np.array([[1.0, -0.9], [-0.9, 0.2]])
    assert least_best_value(members) == pytest.approx(
        min(max(w - 0.9 * (1 - w), -0.9 * w + 0.2 * (1 - w)) for w in np.linspace(0, 1, 100_001)),
        abs=1e-5,
    )
    assert multiplicative_gap(members=members, rows=np.ones((1, 2))) is None
    # one negative entry does no harm where another member is there for those users
    fine = np.array([[1.0, -0.1], [0.4, 0.6]])
    assert multiplicative_gap(members=fine, rows=np.ones((1, 2))) is not None


def test_a_member_worth_nothing_to_somebody_loses_everything():
    share = multiplicative_gap(members=np.array([[1.0, 0.0]]), rows=np.array([[0.5, 0.5]]))
    assert share.value == pytest.approx(1.0, abs=1e-12)
    nothing = multiplicative_gap(members=np.zeros((1, 2)), rows=np.zeros((1, 2)))
    assert nothing.value == 0.0


def test_one_program_finds_what_its_row_loses():
    found = program_gap(members=np.array([[0.6, 0.2]]), row=np.array([0.5, 0.5]))
    assert found.value == pytest.approx(0.3, abs=1e-12)
    np.testing.assert_allclose(found.preference, [0.0, 1.0], atol=1e-9)


@pytest.mark.parametrize(
    ("members", "rows", "word"),
    [
        (np.ones((2, 3)), np.ones((2, 2)), "shape"),
        (np.ones((0, 2)), np.ones((2, 2)), "empty"),
        (np.ones((1, 2)), np.array([[np.inf, 1.0]]), "finite"),
    ],
)
def test_unusable_tables_are_refused(members, rows, word):
    with pytest.raises(InvalidInputError, match=word):
        additive_gap(members=members, rows=rows)
