"""Files and functions stay short enough to read; the lists of exceptions may only shrink."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_STORY_LINES = 200
LONG_FILES: frozenset[str] = frozenset()
LONG_FUNCTIONS: frozenset[str] = frozenset()


STORIES = {"research", "benchmarks"}  # told flat, so their functions may be longer


def sources(root: Path) -> Iterator[Path]:
    yield from (root / "src/palate").rglob("*.py")
    yield from (root / "research").rglob("*.py")
    yield from (root / "benchmarks").glob("*.py")


def test_the_laboratory_is_not_installed(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text())
    shipped = {"libraries/smollm2-135m": "palate/libraries/smollm2-135m"}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/palate"], "force-include": shipped}


def test_no_file_is_longer_than_four_hundred_lines(project_root: Path) -> None:
    long = {
        str(path.relative_to(project_root))
        for path in sources(project_root)
        if len(path.read_text().splitlines()) > MAX_FILE_LINES
    }
    assert long == LONG_FILES


def test_no_function_is_longer_than_sixty_lines_of_code(project_root: Path) -> None:
    long = set()
    for path in sources(project_root):
        limit = MAX_FUNCTION_LINES if STORIES.isdisjoint(path.parts) else MAX_STORY_LINES
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                n_lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                if n_lines > limit:
                    long.add(f"{path.relative_to(project_root)}:{node.name}")
    assert long == LONG_FUNCTIONS
