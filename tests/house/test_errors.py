"""The tree of errors is closed, documented, and mapped to exit codes."""

import ast
from pathlib import Path

import pytest

from palate.cli.exits import exit_code
from palate.core import errors
from palate.core.errors import InvalidInputError, MissingExtraError, PalateError


def tree(root: type[PalateError]) -> list[type[PalateError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in tree(child))]


def test_every_error_lives_in_one_file_and_says_what_it_is() -> None:
    for error in tree(PalateError):
        assert error.__module__ == errors.__name__
        assert error.__doc__


def test_errors_are_also_what_python_programmers_catch() -> None:
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(MissingExtraError, ImportError)


@pytest.mark.parametrize("error", tree(PalateError))
def test_every_error_has_an_exit_code(error: type[PalateError]) -> None:
    assert exit_code(error("what, which value, what to do")) in (1, 2)


def test_bad_input_is_two_and_a_failed_check_is_one() -> None:
    assert exit_code(errors.InvalidPreferenceError("x")) == 2
    assert exit_code(errors.FormatError("x")) == 2
    assert exit_code(errors.CheckFailedError("x")) == 1


def is_validator(node: ast.FunctionDef) -> bool:
    """Whether Python or pydantic calls it and tells its own error.

    A validator's `ValueError` becomes our sentence in `Settings.checked`; a module's `__getattr__`
    must raise `AttributeError` (PEP 562).
    """
    return node.name == "__getattr__" or any(
        "validator" in ast.unparse(decorator) for decorator in node.decorator_list
    )


def test_our_code_raises_our_errors_only(project_root: Path) -> None:
    ours = {error.__name__ for error in tree(PalateError)}
    allowed = ours | {"NotImplementedError", "Exit", "JSONDecodeError"}
    answers = {"ApiError", "HTTPException"}  # of the server: a status and a sentence
    ours_too = [
        *(project_root / "research").rglob("*.py"),
        *(project_root / "benchmarks").glob("*.py"),
    ]
    for path in [*(project_root / "src/palate").rglob("*.py"), *ours_too]:
        module = ast.parse(path.read_text())
        validators = [
            n for n in ast.walk(module) if isinstance(n, ast.FunctionDef) and is_validator(n)
        ]
        excused = {id(inner) for node in validators for inner in ast.walk(node)}
        for node in ast.walk(module):
            if (
                isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and id(node) not in excused
            ):
                name = ast.unparse(node.exc.func).rsplit(".", 1)[-1]
                if name[0].isupper():
                    here = allowed | answers if "serve" in path.parts else allowed
                    assert name in here, f"{path.name}:{node.lineno} raises {name}"
