"""What is written is checked: commands in documents exist, links lead somewhere, YAML loads."""

import ast
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import typer
import yaml
from typer.main import get_command

from documents import blocks
from palate.cli.app import app
from research.command_line import program

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "reports/**/*.md", "examples/**/*.md")


def documents(root: Path) -> list[Path]:
    return [path for pattern in DOCUMENTS for path in sorted(root.glob(pattern))]


def shell_lines(path: Path) -> list[str]:
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", path.read_text(), flags=re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip().removeprefix("$ ") for line in joined.splitlines() if line.strip()]


def require_command(app: typer.Typer, words: list[str]) -> None:
    """Walk the command tree along the words and check every option that is named."""
    command = get_command(app)
    context = typer.Context(command)
    place = 0
    while isinstance(command, typer.core.TyperGroup) and place < len(words):
        inner = command.get_command(context, words[place])
        assert inner is not None, f"no command {' '.join(words[: place + 1])}"
        command, place = inner, place + 1
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    for word in words[place:]:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{command.name} has no option {word}"


def test_every_palate_command_in_a_document_exists_with_its_options(project_root: Path) -> None:
    for path in documents(project_root):
        for line in shell_lines(path):
            words = line.split()
            if words and words[0] in {"palate", ".venv/bin/palate"}:
                require_command(app, words[1:])


def module_command(line: str) -> tuple[str, list[str]] | None:
    """The study or benchmark that a line starts, and the words after it."""
    found = re.match(r"(?:\S*/)?python -m ((?:research|benchmarks)\.[\w.]+)(.*)", line)
    return None if found is None else (found[1], found[2].split(" #")[0].split())


def test_every_study_and_benchmark_in_a_document_exists_with_its_options(
    project_root: Path,
) -> None:
    n_checked = 0
    for path in documents(project_root):
        inline = re.findall(r"`(python -m (?:research|benchmarks)\.[^`]+)`", path.read_text())
        for line in [*shell_lines(path), *inline]:
            found = module_command(line)
            if found is not None:
                module, words = found
                require_command(program(import_module(module).main), words)
                n_checked += 1
    assert n_checked > 20


def test_everything_that_a_document_imports_of_palate_exists(project_root: Path) -> None:
    for path in documents(project_root):
        for block in blocks(path, "python"):
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("palate"):
                    require_names(node, source=path.name)


def require_names(node: ast.ImportFrom, *, source: str) -> None:
    """Every name of the import is there, unless an extra that is not installed is missing."""
    try:
        module = import_module(node.module or "")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("palate"):
            pytest.fail(f"{source}: {ast.unparse(node)}")
        return
    for alias in node.names:
        assert hasattr(module, alias.name), f"{source}: {ast.unparse(node)}"


def test_every_make_target_in_a_document_exists(project_root: Path) -> None:
    targets = set(
        re.findall(r"^([a-z-]+):", (project_root / "Makefile").read_text(), flags=re.MULTILINE)
    )
    for path in documents(project_root):
        for line in shell_lines(path):
            if line.startswith("make "):
                assert line.split()[1] in targets, f"{path.name}: {line}"


def test_every_link_between_documents_leads_to_a_file(project_root: Path) -> None:
    for path in documents(project_root):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
            if not target.startswith(("http", "mailto:")):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_yaml_file_loads(project_root: Path) -> None:
    done = subprocess.run(
        [shutil.which("git") or "git", "ls-files", "*.yaml", "*.yml"],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in done.stdout.splitlines():
        assert yaml.safe_load((project_root / name).read_text()) is not None, name
