"""Importing does nothing and needs little."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

LIGHT = ("core", "metrics", "users", "portfolio", "soup")
HEAVY = ("torch", "transformers", "peft", "trl", "fastapi", "matplotlib")


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


def test_the_light_half_imports_without_heavy_libraries_and_prints_nothing(
    project_root: Path,
) -> None:
    modules = [
        ".".join(path.relative_to(project_root / "src").with_suffix("").parts)
        for folder in LIGHT
        for path in (project_root / "src/palate" / folder).rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert modules
    # a finder, not `sys.modules[name] = None`: scipy looks torch up there and trips over the None
    code = (
        "import sys, importlib, importlib.abc\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name.split('.')[0] in {HEAVY!r}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"for name in {sorted(modules)!r}: importlib.import_module(name)\n"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""


def test_the_program_and_its_commands_load_without_heavy_libraries() -> None:
    heavy = (*HEAVY, "scipy", "sklearn", "numpy", "pandas")
    done = run(
        "import sys, palate.cli.app\n"
        f"loaded = [n for n in {heavy!r} if n in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_face_is_imported_without_numpy_and_torch_and_names_all_it_has() -> None:
    heavy = (*HEAVY, "numpy", "scipy", "pydantic", "sqlalchemy", "yaml")
    done = run(
        "import sys, palate\n"
        f"loaded = [n for n in {heavy!r} if n in sys.modules]\n"
        "assert not loaded, loaded\n"
        "assert set(palate.__all__) <= set(dir(palate))\n"
        "assert palate.InvalidInputError and 'numpy' not in sys.modules\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_inner_init_files_hold_a_docstring_and_nothing_else(project_root: Path) -> None:
    source = project_root / "src/palate"
    face = {source / "__init__.py"}
    called = {source / "build/__init__.py", source / "evaluate/__init__.py"}  # like functions
    for path in set(source.rglob("__init__.py")) - face:
        body = ast.parse(path.read_text()).body
        if path in called:
            body = [body[0]] if len(body) == 3 else body  # and the two lines that make it callable
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path


def test_no_file_speaks_of_the_machine_it_was_written_on(project_root: Path) -> None:
    forbidden = ("/wo" + "rk/", "/ro" + "ot/")
    done = subprocess.run(
        [shutil.which("git") or "git", "ls-files"],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in done.stdout.splitlines():
        path = project_root / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".sh", ".json"}:
            text = path.read_text()
            assert not any(word in text for word in forbidden), name
