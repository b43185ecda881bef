import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def mope_cases(shared_folder: Path) -> dict[str, Any]:
    return json.loads((shared_folder / "methods" / "cases" / "mope.json").read_text())
