import json

import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.soup.coefficients_file import CoefficientsFile, load_coefficients, save_coefficients


def test_what_was_saved_is_loaded_on_the_same_base_only(tmp_path):
    path = tmp_path / "c.json"
    content = CoefficientsFile(base="abc", coefficients={"kind": 0.7, "short": -0.2})
    save_coefficients(path, content)
    assert load_coefficients(path, base="abc") == content
    with pytest.raises(FormatError, match="'abc'"):
        load_coefficients(path, base="def")


def test_fields_that_are_missing_or_not_numbers_are_named(tmp_path):
    path = tmp_path / "c.json"
    save_coefficients(path, CoefficientsFile(base="abc", coefficients={"kind": 0.7}))
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "coefficients": {"kind": "much"}}))
    with pytest.raises(InvalidInputError, match=r"coefficients\.kind"):
        load_coefficients(path)
    path.write_text(json.dumps({key: whole[key] for key in whole if key != "coefficients"}))
    with pytest.raises(InvalidInputError, match=r"'coefficients' in .* is missing"):
        load_coefficients(path)
