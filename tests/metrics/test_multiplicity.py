import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.core.errors import InvalidInputError
from palate.metrics.differences import holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, then the running maximum
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(deadline=None)
@given(P_VALUES, st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    rejected = set()
    order = np.argsort(p_values, kind="stable")
    for step, index in enumerate(order):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected.add(int(index))
    assert set(np.flatnonzero(holm(p_values) <= level).tolist()) == rejected


def test_nothing_tested_is_nothing_adjusted():
    assert holm([]).size == 0


@pytest.mark.parametrize("bad", [[1.2], [-0.1], [float("nan")]])
def test_what_is_no_p_value_is_refused(bad):
    with pytest.raises(InvalidInputError, match="p-values"):
        holm(bad)


def test_holm_keeps_the_chance_of_any_false_claim_in_a_table_at_5_percent():
    draws = np.random.default_rng(41)
    p_values = draws.random((2000, 20))
    any_raw = np.mean((p_values <= 0.05).any(axis=1))
    any_adjusted = np.mean([(holm(row) <= 0.05).any() for row in p_values])
    assert any_raw > 0.6
    assert any_adjusted <= 0.065  # 0.05 and three standard errors
