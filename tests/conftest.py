"""Fixtures for every test."""

from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("no deadline", deadline=None)  # no test is timed
hypothesis.settings.load_profile("no deadline")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Data that developers have beside the project and users do not."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the developers' data folder is not beside the project")
    return folder


@pytest.fixture(scope="session")
def tiny_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once; tests do not change it."""
    from tiny import save_tiny_library  # imports torch, which most tests do not need

    return save_tiny_library(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_soup_library(tiny_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with rollouts and a `soup.json`; tests do not change it."""
    from tiny import save_tiny_soup_library

    return save_tiny_soup_library(tiny_library, tmp_path_factory.mktemp("soup") / "library")


@pytest.fixture(scope="session")
def tiny_full_library(tiny_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny library with every part that a method can need; tests do not change it."""
    from tiny import save_tiny_full_library

    return save_tiny_full_library(tiny_library, tmp_path_factory.mktemp("full") / "library")


@pytest.fixture(scope="session")
def tiny_floored_library(tiny_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a safety floor of 0.3 on the expert `plain`."""
    from tiny import FULL_FLOOR, save_tiny_full_library

    folder = tmp_path_factory.mktemp("floored") / "library"
    return save_tiny_full_library(tiny_library, folder, floor=FULL_FLOOR)
