import pytest

from palate.core.errors import InvalidInputError
from palate.recipes.people_coverage import study_coverage


def test_the_closest_normal_covers_where_laplace_falls_short() -> None:
    found = study_coverage(n_coefficients=12, comparisons=[20], n_people=1000, seed=0)
    row = found["after 20"]
    assert row["closest normal"]["low"] <= 0.9
    assert row["closest normal"]["covered"] > 0.85 > row["laplace"]["covered"]


def test_no_comparisons_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 1"):
        study_coverage(n_coefficients=2, comparisons=[0], n_people=10, seed=0)
