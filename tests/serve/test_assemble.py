"""A server's parts are put together from a library and a database."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.engine.local import LocalEngine
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.manifest import ExpertRecord
from palate.serve import assemble as recipe
from palate.serve.assemble import ServeJob, assemble, serve_library
from palate.serve.settings import ServeSettings
from palate.serve.state import Served
from palate.store.database import open_database
from palate.store.keys import issue_key
from palate.store.users import require_mark


@pytest.fixture(scope="module")
def opened(tiny_library: Path) -> Library:
    return Library.load(tiny_library)


def test_a_database_belongs_to_one_library(opened: Library, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'users.db'}"
    database = open_database(url)
    require_mark(database, name="library", value="another", remedy="x")
    database.close()
    with pytest.raises(FormatError, match="each library its own database"):
        assemble(opened, ServeSettings(), database=url)


def test_keys_that_work_are_needed_once_they_exist(opened: Library, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'users.db'}"
    assert not assemble(opened, ServeSettings(), database=url).has_keys
    database = open_database(url)
    issue_key(database, label="site", role="admin", lasts_seconds=86_400.0)
    database.close()
    assert assemble(opened, ServeSettings(), database=url).has_keys


def test_a_public_address_without_keys_is_refused_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    public = "0.0.0.0"  # noqa: S104  it is refused
    job = ServeJob(
        tmp_path, str(tmp_path / "users.db"), public, 80, None, "cpu", "float32", ServeSettings()
    )
    with pytest.raises(InvalidInputError, match="no key was issued"):
        serve_library(job)


def test_without_a_soup_file_features_are_scaled_by_the_rollouts(opened: Library) -> None:
    manifest = opened.manifest
    experts: list[ExpertRecord] = [
        replace(record, tilt_mean=-0.1 * k, tilt_sd=0.5 * k)
        for k, record in enumerate(manifest.experts)
    ]
    files = LibraryFolder(opened.files.folder, replace(manifest, experts=tuple(experts)))
    basis = Library(files, opened.base, opened.bank).basis
    assert basis.feature_scales.tolist() == [1.0, 0.5, 1.0]  # one that says nothing counts as one
    assert np.allclose(basis.feature_means, [0.0, -0.1, -0.2])


def test_a_library_without_experts_cannot_be_served(opened: Library, tmp_path: Path) -> None:
    files = LibraryFolder(opened.files.folder, replace(opened.manifest, experts=()))
    library = Library(files, opened.base, opened.bank)
    with pytest.raises(InvalidInputError, match="no experts to serve"):
        assemble(library, ServeSettings(), database=str(tmp_path / "p.db"))


@dataclass
class Started:
    """What would have been listened with."""

    served: Served
    host: str
    port: int


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Started]:
    """Servers that were started, none of which listens."""
    found: list[Started] = []
    monkeypatch.setattr(
        recipe, "serve", lambda served, *, host, port: found.append(Started(served, host, port))
    )
    return found


def test_an_open_library_is_served_with_defaults_in_this_folder(
    opened: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[Started]
) -> None:
    monkeypatch.chdir(tmp_path)
    opened.serve()
    (one,) = started
    assert (one.host, one.port) == ("127.0.0.1", 8000)
    assert one.served.library is opened
    assert (tmp_path / "users.db").is_file()


def test_store_engine_and_settings_of_an_open_library_are_taken_in_every_form(
    opened: Library, tmp_path: Path, started: list[Started]
) -> None:
    class Store:
        url = f"sqlite:///{tmp_path}/object.db"

    class Choice:
        def open(self, library: Library) -> LocalEngine:
            return LocalEngine(library.base, library.bank, max_num_seqs=3)

    def made(library: Library) -> LocalEngine:
        return LocalEngine(library.base, library.bank, max_num_seqs=5)

    opened.serve(store=Store(), engine=Choice(), settings={"max_num_seqs": 2}, port=9)
    opened.serve(store=tmp_path / "path.db", engine=made, settings=ServeSettings(max_num_seqs=2))
    opened.serve(store=f"sqlite:///{tmp_path}/url.db", settings={"max_num_seqs": 2})
    assert [one.served.engine.max_num_seqs for one in started] == [3, 5, 2]
    assert [one.port for one in started] == [9, 8000, 8000]
    assert all((tmp_path / f"{name}.db").is_file() for name in ("object", "path", "url"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"store": 5}, "The store is a int, which names no database"),
        ({"engine": 5}, "The engine is a int"),
        ({"settings": {"max_row": 2}}, "'max_row' in settings is unknown"),
        ({"host": "0.0.0.0"}, "no key was issued"),  # noqa: S104  it is refused
    ],
)
def test_options_of_another_kind_are_refused(
    opened: Library, tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        opened.serve(**{"store": tmp_path / "users.db", **options})


@pytest.mark.parametrize("name", ["portfolio.json", "soup.json", "methods.json"])
def test_a_server_does_not_begin_with_a_broken_part(
    name: str, tiny_library: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(tiny_library, tmp_path / "library") / name
    path.write_text("[]")
    library = Library.load(tmp_path / "library")
    with pytest.raises(FormatError) as caught:
        assemble(library, ServeSettings(), database=str(tmp_path / "users.db"))
    assert str(path) in str(caught.value)
    assert not (tmp_path / "users.db").exists()
