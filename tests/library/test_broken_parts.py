"""Broken files of a library are refused when it is opened for serving, one sentence each."""

import shutil
from pathlib import Path

import pytest

from palate.core.errors import PalateError
from palate.library.library import Library


def _open(folder: Path) -> None:
    library = Library.load(folder)
    _ = library.portfolio, library.controller, library.method_table, library.floor


DAMAGE = {
    "torn": lambda text: text[: len(text) // 2],
    "empty": lambda _: "",
    "a list": lambda _: "[]",
    "deep": lambda _: "[" * 100_000,
    "of another kind": lambda _: '{"kind": "other", "schema_version": 1}',
}


@pytest.mark.parametrize("name", ["library.json", "portfolio.json", "soup.json", "methods.json"])
def test_a_broken_part_is_refused(name: str, tiny_full_library: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_full_library, tmp_path / "library")
    whole = (folder / name).read_text()
    _open(folder)
    faults: dict[str, str] = {}
    for kind, damage in DAMAGE.items():
        (folder / name).write_text(damage(whole))
        try:
            _open(folder)
        except PalateError as error:
            said = name.partition(".")[0] in str(error)
            faults |= {} if said else {kind: f"does not name the file: {error}"}
        except Exception as error:  # noqa: BLE001  a traceback is what is looked for
            faults[kind] = repr(error)
        else:
            faults[kind] = "was accepted"
    assert not faults
