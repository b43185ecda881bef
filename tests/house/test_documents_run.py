"""The README and the page on Python, run as they stand: commands, server, Python blocks."""

import os
from pathlib import Path

import pytest

from document_steps import run_command, run_python, serving
from documents import blocks, write_story


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents take for granted, and the library that they build."""
    folder = tmp_path_factory.mktemp("documents")
    write_story(folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        run_command("palate build run.yaml --out library")
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def in_story(story: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(story)
    for path in [*story.glob("users.db*")]:
        path.unlink()
    return story


def test_the_commands_of_the_readme_run_as_they_stand(in_story: Path, project_root: Path) -> None:
    lines = [line for one in blocks(project_root / "README.md", "bash") for line in one.commands]
    ours = [line for line in lines if line.startswith("palate ")]
    assert any(line.startswith("palate build run.yaml --out library") for line in ours)
    for line in ours:
        if not line.startswith("palate serve"):
            run_command(line)
    assert (in_story / "merged/adapter_model.safetensors").is_file()


def test_the_python_of_the_readme_runs_as_it_stands(in_story: Path, project_root: Path) -> None:
    parts = blocks(project_root / "README.md", "python")
    local = [part for part in parts if "openai" not in part.text]
    assert local
    run_python(local, name="README.md")
    assert (in_story / "adapter/adapter_model.safetensors").is_file()


def test_the_server_of_the_readme_answers_its_client(in_story: Path, project_root: Path) -> None:
    lines = [line for one in blocks(project_root / "README.md", "bash") for line in one.commands]
    (line,) = [line for line in lines if line.startswith("palate serve")]
    parts = blocks(project_root / "README.md", "python")
    remote = [part for part in parts if "openai" in part.text]
    assert remote
    with serving(line) as port:
        run_python(remote, name="README.md", port=port)


def test_the_page_on_python_runs_as_it_stands(in_story: Path, project_root: Path) -> None:
    adapter = in_story / "adapter"
    if adapter.exists():  # the README's
        adapter.rename(in_story / "adapter-of-readme")
    run_python(blocks(project_root / "docs/python.md", "python"), name="docs/python.md")
    assert (in_story / "compared/results.jsonl").is_file()
    assert (adapter / "adapter_model.safetensors").is_file()
