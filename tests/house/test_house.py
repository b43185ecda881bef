"""The house stays small, reached, shaped and in the field's words."""

from pathlib import Path

import pytest

from house.call_graph import unreached
from house.figures import House, measure
from house.words import banned_words

MAX_INSTALLED_LINES = 42_000  # may only shrink
MAX_COMMANDS = 32  # the same


@pytest.fixture(scope="module")
def house(project_root: Path) -> House:
    return measure(project_root)


def test_what_is_installed_does_not_grow(house: House) -> None:
    assert house.n_lines <= MAX_INSTALLED_LINES, f"{house.n_lines:,} installed lines of Python"


def test_the_program_does_not_gain_commands(house: House) -> None:
    assert house.n_commands <= MAX_COMMANDS


def test_no_two_folders_import_each_other(house: House) -> None:
    assert house.circles == []


def test_public_functions_over_arrays_say_shapes(house: House) -> None:
    assert house.unshaped == []


def test_every_public_function_is_reached(project_root: Path) -> None:
    assert unreached(project_root) == []


def test_a_function_without_a_caller_is_seen(tmp_path: Path) -> None:
    package = tmp_path / "src/palate"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "rooms.py").write_text(
        "def used():\n    return 1\n\n\ndef unused():\n    return unused_too()\n\n\n"
        "def unused_too():\n    return 2\n\n\nclass Kept:\n    def asked(self):\n        pass\n\n"
        "    def never(self):\n        pass\n\n\nVALUE = used()\nKept().asked()\n"
    )
    (tmp_path / "README.md").write_text("")
    (tmp_path / "docs").mkdir()
    (tmp_path / "examples").mkdir()
    (tmp_path / "pyproject.toml").write_text("[project]\nscripts = {}\n")
    names = ["palate.rooms.Kept.never", "palate.rooms.unused", "palate.rooms.unused_too"]
    assert unreached(tmp_path) == names


def test_no_word_stands_that_the_field_has_another_for(project_root: Path) -> None:
    assert banned_words(project_root) == []


def test_a_banned_word_is_seen(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "README.md").write_text("A person may be a personality.\n")
    (tmp_path / "src/rooms.py").write_text("found = 1  # it was found\n")
    assert banned_words(tmp_path) == [
        "README.md:1: person, use user",
        "src/rooms.py:1: the name found, use result",
    ]
