"""Numbers by name on the command line."""

import pytest

from palate.cli.options import numbers_by_name
from palate.core.errors import InvalidInputError


def test_names_and_numbers_are_read() -> None:
    assert numbers_by_name("a=0.7, b = -0.2", what="x") == {"a": 0.7, "b": -0.2}
    assert numbers_by_name(None, what="x") is None


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=x", "a=nan", "a=1,a=2", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="preference"):
        numbers_by_name(text, what="preference")
