import pytest

from palate.core.errors import InvalidInputError
from research.preferences.coverage import study_coverage


def test_what_is_shown_covers_where_what_is_stored_falls_short() -> None:
    found = study_coverage(n_coefficients=4, comparisons=[40], n_users=150, seed=0)
    for row in (found["after 40, population's gain"], found["after 40, own gains"]):
        assert 0.93 <= row["shown"]["interval"]["covered"] <= 0.97
        assert row["stored"]["interval"]["covered"] < 0.93
        assert row["shown"]["region"]["high"] > 0.9 > row["stored"]["region"]["covered"]
        assert row["shown"]["interval"]["low"] < row["shown"]["interval"]["covered"]


def test_no_comparisons_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 1"):
        study_coverage(n_coefficients=2, comparisons=[0], n_users=10, seed=0)
