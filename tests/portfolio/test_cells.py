import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from palate.portfolio.grid import kuhn_cell
from tabular_problems import all_cells


def test_cells_are_those_of_every_case(grid_case):
    for case in grid_case["cells"]:
        cell = kuhn_cell(np.array(case["w"]), denominator=case["n"])
        np.testing.assert_allclose(cell.barycentric @ cell.vertices, case["w"], rtol=0, atol=1e-12)
        if min(case["barycentric"]) > 1e-9:  # otherwise the cell is not unique
            np.testing.assert_allclose(
                np.array(sorted(cell.vertices.tolist())), case["vertices"], atol=1e-12
            )
            found = dict(zip(map(tuple, np.round(cell.vertices, 9)), cell.barycentric, strict=True))
            expected = [found[tuple(vertex)] for vertex in np.round(case["vertices"], 9)]
            np.testing.assert_allclose(expected, case["barycentric"], atol=1e-12)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 9))
def test_a_cell_holds_its_preference_between_lattice_points(seed, d, denominator):
    preference = np.random.default_rng(seed).dirichlet(np.ones(d))
    cell = kuhn_cell(preference, denominator=denominator)
    assert np.all(cell.barycentric >= -1e-12)
    assert cell.barycentric.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(cell.barycentric @ cell.vertices, preference, atol=1e-12)
    counts = cell.vertices * denominator
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)


def test_all_cells_are_those_of_the_case(tabular_case):
    cover = tabular_case["cover"]
    points, cells = all_cells(n_objectives=3, denominator=cover["lattice_denominator"])
    np.testing.assert_allclose(points, cover["points"], atol=1e-15)
    assert sorted(map(sorted, cells.tolist())) == sorted(map(sorted, cover["cells"]))


@pytest.mark.parametrize(("d", "denominator"), [(1, 3), (2, 5), (3, 4), (4, 3), (5, 2)])
def test_cells_fill_the_simplex(d, denominator):
    points, cells = all_cells(n_objectives=d, denominator=denominator)
    assert len(cells) == denominator ** (d - 1)
    volumes = np.abs(np.linalg.det(points[cells]))
    assert volumes.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.ptp(volumes) < 1e-12


def test_a_denominator_below_one_is_refused():
    with pytest.raises(InvalidInputError, match="one or more"):
        kuhn_cell(np.array([0.5, 0.5]), denominator=0)
