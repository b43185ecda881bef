"""A tiny random base."""

from pathlib import Path

import pytest

from fakes import save_tiny_llama
from palate.models.load import Base, load_base


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def base(base_folder: Path) -> Base:
    return load_base(base_folder)
