import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(20260201)


@pytest.fixture(scope="session")
def soup_cases(shared_folder: Path) -> dict[str, Any]:
    return json.loads((shared_folder / "methods" / "cases" / "soup.json").read_text())
