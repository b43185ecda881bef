"""Names of shipped libraries stand for their folders."""

from pathlib import Path

from palate.library.shipped import SHIPPED, library_folder


def test_a_name_is_its_folder_and_other_paths_are_themselves(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in SHIPPED:
        assert library_folder(name).is_dir()
        assert library_folder(name).name == name
    assert library_folder("elsewhere") == Path("elsewhere")


def test_a_folder_of_the_same_name_goes_before(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / SHIPPED[0]).mkdir()
    assert library_folder(SHIPPED[0]) == Path(SHIPPED[0])


def test_shipped_libraries_are_small() -> None:
    for name in SHIPPED:
        sizes = [path.stat().st_size for path in library_folder(name).rglob("*") if path.is_file()]
        assert max(sizes) <= 4_000_000
        assert sum(sizes) <= 40_000_000
