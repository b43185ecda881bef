"""The example of a method of one's own: decides, is measured, and is served."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from starlette.testclient import TestClient

import palate
from palate.serve.app import make_app
from palate.serve.assemble import assemble
from palate.serve.settings import ServeSettings


@pytest.fixture(scope="module")
def example(project_root: Path) -> ModuleType:
    path = project_root / "examples/own_method.py"
    spec = importlib.util.spec_from_file_location("own_method", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_takes_the_expert_whose_anchor_is_closest(
    example: ModuleType, tiny_full_library: Path
) -> None:
    library = palate.Library.load(tiny_full_library)
    method = example.NearestExpert()
    assert isinstance(method, palate.Method)
    known = palate.Known(preference={"short": 0.6, "kind": 0.4})
    decision = library.decide("Why?", known, method=method)
    assert (decision.method, dict(decision.coefficients)) == ("nearest-expert", {"short": 1.0})
    assert library.decide("Why?", method=method).method == "base"
    output = library.generate("Why?", preference={"plain": 1.0}, method=method)
    assert isinstance(output, palate.Output)
    assert output.reason == "The anchor of 'plain' is the closest to the preference."


def test_it_is_compared_as_the_script_does(
    example: ModuleType, tiny_full_library: Path, tmp_path: Path
) -> None:
    example.main(str(tiny_full_library), str(tmp_path / "out"), is_served=False)
    text = (tmp_path / "out/results.jsonl").read_text()
    assert '"nearest-expert"' in text


def test_it_is_served_under_its_name(
    example: ModuleType, tiny_full_library: Path, tmp_path: Path
) -> None:
    library = palate.Library.load(tiny_full_library)
    library.methods["nearest-expert"] = example.NearestExpert()
    settings = ServeSettings(default_tokens=8)
    served = assemble(library, settings, database=f"sqlite:///{tmp_path}/users.db")
    with TestClient(make_app(served), base_url="http://localhost") as client:
        body = {
            "model": "palate",
            "messages": [{"role": "user", "content": "Why?"}],
            "palate": {"method": "nearest-expert", "preference": {"kind": 1.0}},
        }
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["palate"]["method"] == "nearest-expert"
    assert answer.json()["palate"]["coefficients"] == {"kind": 1.0}
