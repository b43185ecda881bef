"""Settings: YAML and overrides, strictly typed."""

from pathlib import Path

import pytest
from pydantic import model_validator

from palate.core.errors import InvalidInputError
from palate.core.settings import Settings, load_settings


class Inner(Settings):
    rate: float = 0.1


class Outer(Settings):
    name: str
    count: int = 3
    inner: Inner = Inner()


def test_a_file_and_overrides_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: a\ninner: {rate: 0.5}\n")
    found = load_settings(Outer, path, overrides=["count=7", "inner.rate=2.5"])
    assert found == Outer(name="a", count=7, inner=Inner(rate=2.5))


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("name: a\nnaem: b\n", [], "'naem' in .* is unknown"),
        ("name: a\n", ["inner.rat=1"], "'inner.rat' in .* is unknown"),
        ("count: 1\n", [], "'name' in .* is missing"),
        ("name: a\ncount: many\n", [], "'count' in .* has the value 'many'"),
        ("name: a\n", ["count"], "not of the form key=value"),
        ("name: a\n", ["name.first=b"], "goes below 'name'"),
        ("[1, 2]\n", [], "not a mapping"),
        ("name: [a\n", [], "not valid YAML"),
        ("name: 2024-02-30\n", [], "not valid YAML"),
        ("name: !!int abc\n", [], "not valid YAML"),
        ("name: !!bool abc\n", [], "not valid YAML"),
        ("name: !!timestamp x\n", [], "not valid YAML"),
        ("name: " + 3000 * "[", [], "not valid YAML"),
        ("name: a\n", ["name=2024-02-30"], "override 'name=2024-02-30' is not valid YAML"),
        ("name: a\n1: b\n", [], "'1'|Keys should be strings"),
        ("inner: {rate: 1}\nname: a\ninner: {}\n", [], "the key 'inner' occurs twice"),
        ("name: a\ninner: {rate: 1, rate: 2}\n", [], "the key 'rate' occurs twice"),
        ("name: a\n", ["inner={rate: 1, rate: 2}"], "the key 'rate' occurs twice"),
    ],
)
def test_what_is_not_allowed_is_named_in_one_sentence(
    tmp_path: Path, text: str, overrides: list[str], words: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=words) as found:
        load_settings(Outer, path, overrides=overrides)
    assert "\n" not in str(found.value)


def test_a_key_stands_over_what_is_merged_and_plain_data_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("inner: &own {rate: 0.5}\nname: a\n")
    assert load_settings(Outer, path).inner.rate == 0.5
    path.write_text("inner: {<<: {rate: 0.5}, rate: 0.25}\nname: a\n")
    assert load_settings(Outer, path).inner.rate == 0.25
    plain = {"name": "a\x85b \u2028 c", "inner": {"rate": 1e-05}}
    found = load_settings(Outer, plain, overrides=["inner.rate=1", "count=4"])
    assert found == Outer(name="a\x85b \u2028 c", count=4, inner=Inner(rate=1))
    assert plain == {"name": "a\x85b \u2028 c", "inner": {"rate": 1e-05}}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        load_settings(Outer, tmp_path / "none.yaml")


class Range(Settings):
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) is not below high ({self.high}).")
        return self


def test_settings_that_contradict_each_other_are_told_without_being_printed_whole(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("low: 5\nhigh: 2\n")
    with pytest.raises(InvalidInputError) as found:
        load_settings(Range, path)
    assert str(found.value) == (
        f"The settings in {path} do not hold: low (5) is not below high (2)."
    )


def test_a_file_of_another_encoding_is_named_and_one_with_a_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("name: größe\n".encode("utf-16"))
    with pytest.raises(InvalidInputError, match="not UTF-8 text"):
        load_settings(Outer, path)
    path.write_bytes("name: größe\n".encode("utf-8-sig"))
    assert load_settings(Outer, path).name == "größe"
