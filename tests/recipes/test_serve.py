"""A server's parts are put together from a library and a database."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate.core.errors import FormatError, InvalidInputError
from palate.experts.library import Library
from palate.experts.manifest import ExpertRecord
from palate.profiles.database import open_database
from palate.profiles.persons import require_mark
from palate.recipes.opened import Opened, open_library
from palate.recipes.people_kept import issue_kept_key
from palate.recipes.serve import ServeJob, assemble, library_basis, library_states, serve_library
from palate.serve.settings import ServeSettings


@pytest.fixture(scope="module")
def opened(tiny_library: Path) -> Opened:
    return open_library(tiny_library)


def test_a_database_belongs_to_one_library(opened: Opened, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'people.db'}"
    database = open_database(url)
    require_mark(database, name="library", value="another", remedy="x")
    database.close()
    with pytest.raises(FormatError, match="each library its own database"):
        assemble(opened, ServeSettings(), database=url)


def test_keys_that_work_are_needed_once_they_exist(opened: Opened, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'people.db'}"
    assert not assemble(opened, ServeSettings(), database=url).has_keys
    issue_kept_key(url, label="site", role="admin", days=1.0)
    assert assemble(opened, ServeSettings(), database=url).has_keys


def test_a_public_address_without_keys_is_refused_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    public = "0.0.0.0"  # noqa: S104  it is refused
    job = ServeJob(
        tmp_path, str(tmp_path / "people.db"), public, 80, None, "cpu", "float32", ServeSettings()
    )
    with pytest.raises(InvalidInputError, match="no key was issued"):
        serve_library(job)


def test_without_a_soup_file_features_are_scaled_by_the_rollouts(opened: Opened) -> None:
    library, manifest = opened.library, opened.library.manifest
    experts: list[ExpertRecord] = [
        replace(record, tilt_mean=-0.1 * k, tilt_sd=0.5 * k)
        for k, record in enumerate(manifest.experts)
    ]
    changed = replace(
        opened, library=Library(library.folder, replace(manifest, experts=tuple(experts)))
    )
    basis = library_basis(changed, library_states(changed))
    assert basis.feature_scales.tolist() == [1.0, 0.5, 1.0]  # one that says nothing counts as one
    assert np.allclose(basis.feature_means, [0.0, -0.1, -0.2])


def test_a_library_without_experts_cannot_be_served(opened: Opened, tmp_path: Path) -> None:
    library = Library(opened.library.folder, replace(opened.library.manifest, experts=()))
    with pytest.raises(InvalidInputError, match="no experts to serve"):
        assemble(replace(opened, library=library), ServeSettings(), database=str(tmp_path / "p.db"))
