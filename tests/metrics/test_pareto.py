import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from palate.metrics.pareto import hypervolume

GRIDS = st.integers(2, 4).flatmap(
    lambda d: st.lists(st.lists(st.integers(0, 4), min_size=d, max_size=d), min_size=1, max_size=7)
)


def test_the_hypervolume_of_three_steps_by_hand():
    # columns of width 1 and heights 3, 2, 1
    values = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    assert hypervolume(values, reference=np.zeros(2)) == pytest.approx(6.0)


@settings(max_examples=60, deadline=None)
@given(GRIDS)
def test_the_hypervolume_counts_the_dominated_cells_of_a_grid(rows):
    values = np.array(rows, dtype=float)
    cells = np.stack(np.meshgrid(*[np.arange(4)] * values.shape[1]), axis=-1)
    cells = cells.reshape(-1, values.shape[1])
    dominated = np.any(np.all(cells[:, None] + 1 <= values[None], axis=2), axis=1)
    assert hypervolume(values, reference=np.zeros(values.shape[1])) == dominated.sum()


def test_equal_and_dominated_policies_add_nothing():
    values = np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 2.0], [1.0, 2.0], [3.0, 1.0]])
    assert hypervolume(values, reference=np.zeros(2)) == pytest.approx(6.0)


def test_policies_below_the_reference_add_nothing():
    values = np.array([[2.0, 2.0], [5.0, -1.0]])
    assert hypervolume(values, reference=np.zeros(2)) == 4.0
    assert hypervolume(values, reference=np.full(2, 3.0)) == 0.0


def test_bad_tables_are_refused():
    with pytest.raises(InvalidInputError, match="finite table"):
        hypervolume(np.array([[np.nan, 1.0]]), reference=np.zeros(2))
    with pytest.raises(InvalidInputError, match="2 objectives"):
        hypervolume(np.ones((1, 2)), reference=np.zeros(3))
