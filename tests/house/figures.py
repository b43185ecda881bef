"""The house in numbers, as `python -m tests.house` prints them and the house tests bound them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from typer.main import get_command

ARRAYS = ("ndarray", "Tensor")
SHAPED = ("Float[", "Int[", "Bool[", "Integer[", "Shaped[", "UInt8[", "Num[", "Inexact[")


@dataclass(frozen=True)
class House:
    """What a stranger would count.

    Attributes:
        n_lines: All lines of the installed Python files.
        n_commands: Commands of `palate`, groups not counted.
        largest: The folder with the most lines, and how many these are.
        circles: Pairs of folders that import each other.
        unshaped: Public functions over arrays of which neither types nor docstring give shapes.
    """

    n_lines: int
    n_commands: int
    largest: tuple[str, int]
    circles: list[str]
    unshaped: list[str]


def measure(root: Path) -> House:
    """The house below a checkout."""
    from palate.cli.app import app

    package = root / "src/palate"
    sizes: dict[str, int] = {}
    for path in package.rglob("*.py"):
        folder = path.relative_to(package).parts[0]
        sizes[folder] = sizes.get(folder, 0) + len(path.read_text().splitlines())
    largest = max(sizes, key=lambda folder: sizes[folder])
    return House(
        n_lines=sum(sizes.values()),
        n_commands=count_commands(get_command(app)),
        largest=(largest, sizes[largest]),
        circles=circles(package),
        unshaped=sorted(unshaped(package)),
    )


def count_commands(program: object) -> int:
    """Commands of a program; a group counts for what is in it."""
    assert isinstance(program, typer.core.TyperGroup)
    context = typer.Context(program)
    total = 0
    for name in program.list_commands(context):
        inner = program.get_command(context, name)
        is_group = isinstance(inner, typer.core.TyperGroup)
        total += count_commands(inner) if is_group else 1
    return total


def circles(package: Path) -> list[str]:
    """Pairs of folders that import each other when they are loaded, as `a <-> b`."""
    edges: set[tuple[str, str]] = set()
    for path in package.rglob("*.py"):
        folder = path.relative_to(package).parts[0]
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.ImportFrom) and statement.module:
                parts = statement.module.split(".")
                if parts[0] == "palate" and len(parts) > 1 and parts[1] != folder:
                    edges.add((folder, parts[1]))
    return sorted(f"{a} <-> {b}" for a, b in edges if a < b and (b, a) in edges)


def unshaped(package: Path) -> Iterator[str]:
    """Public functions that take or give arrays and say no shape anywhere."""
    for path in package.rglob("*.py"):
        for name, function in _public(ast.parse(path.read_text())):
            words = [ast.unparse(a.annotation) for a in _arguments(function) if a.annotation]
            words += [ast.unparse(function.returns)] if function.returns else []
            arrays = [w for w in words if any(kind in w for kind in ARRAYS)]
            bare = [w for w in arrays if not any(shape in w for shape in SHAPED)]
            if bare and "`[" not in (ast.get_docstring(function) or ""):
                yield f"{path.relative_to(package)}:{name}"


def _public(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef) and not statement.name.startswith("_"):
            for inner in statement.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield f"{statement.name}.{inner.name}", inner
        elif isinstance(statement, ast.FunctionDef) and not statement.name.startswith("_"):
            yield statement.name, statement


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    given = function.args
    return [*given.posonlyargs, *given.args, *given.kwonlyargs]
