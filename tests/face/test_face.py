"""The face of the package: its names, what they are, and what is missing said in a sentence."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import palate
from palate.core.decision import Known
from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.protocols import SamplingParams


def test_every_name_of_the_face_can_be_had_and_is_listed() -> None:
    assert sorted(palate.__all__) == list(palate.__all__)
    assert set(palate.__all__) <= set(dir(palate))
    for name in palate.__all__:
        assert getattr(palate, name) is getattr(palate, name)
    assert palate.SamplingParams is SamplingParams
    assert palate.Known is Known
    assert palate.InvalidInputError is InvalidInputError
    with pytest.raises(AttributeError, match="'Libary'"):
        palate.Libary  # noqa: B018  a wrong name is what is tested


def test_what_the_type_checker_sees_is_what_there_is() -> None:
    tree = inspect.getsource(palate)
    declared = tree.split("if TYPE_CHECKING:")[1].split("_PLACES")[0]
    for name in palate.__all__:
        assert name in declared, name
    assert set(palate._PLACES) == set(palate.__all__)


@pytest.mark.parametrize(
    ("name", "module", "function"),
    [
        ("build", "palate.build.library", "build"),
        ("evaluate", "palate.evaluate.evaluation", "evaluate_library"),
    ],
)
def test_a_folder_of_the_same_name_stays_a_folder_and_can_be_called(
    name: str, module: str, function: str
) -> None:
    """Also after something below it was imported, which binds the folder's name anew."""
    importlib.import_module(
        {"build": "palate.build.strength", "evaluate": "palate.evaluate.rows"}[name]
    )
    found = getattr(palate, name)
    assert inspect.ismodule(found)
    assert found is sys.modules[f"palate.{name}"]
    target = getattr(importlib.import_module(module), function)
    assert inspect.signature(found) == inspect.signature(target)
    with pytest.raises(TypeError, match="missing"):
        found()


def test_nothing_heavy_is_imported_until_a_name_needs_it() -> None:
    code = (
        "import sys, palate\n"
        "palate.Known, palate.InvalidInputError, palate.build, palate.evaluate\n"
        "assert 'torch' not in sys.modules\n"
        "palate.Library\n"
        "assert 'torch' in sys.modules and 'sqlalchemy' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ModuleNotFoundError("no", name="torch" if name.endswith("library") else "palate.no")

    monkeypatch.setattr(palate, "import_module", refuse)
    with pytest.raises(MissingExtraError, match=r"palate\.Library .* palate\[train\]"):
        palate.__getattr__("Library")
    with pytest.raises(ModuleNotFoundError):
        palate.__getattr__("Known")


def test_a_vllm_engine_checks_its_settings_and_is_what_a_server_takes(tmp_path: Path) -> None:
    engine = palate.VLLMEngine("http://127.0.0.1:1/v1", max_adapters=4)
    assert engine.settings.max_adapters == 4
    assert callable(engine.open)
    with pytest.raises(InvalidInputError, match="'max_adaptors'"):
        palate.VLLMEngine("http://127.0.0.1:1/v1", max_adaptors=4)
    with pytest.raises(InvalidInputError, match="holds no adapters"):
        palate.VLLMEngine("http://127.0.0.1:1/v1", adapters=tmp_path)
