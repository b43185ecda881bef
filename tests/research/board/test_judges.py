"""Judges: other families than the teachers, and the same forms as the shipped library's check."""

import importlib.util
from pathlib import Path

import pytest

from palate import Library
from palate.core.errors import FormatError
from research.board.forms import FORMS
from research.board.judges import judges_of

TEXTS = (
    "",
    "Thank you, my friend! I hope that you enjoy this lovely day.",
    "It is a stupid and lazy question",
    "The mitochondrion phosphorylates adenosine diphosphate. It does so by chemiosmosis. Hm.",
    "The cat sat. The cat sat. The cat sat. " * 20,
)


def test_forms_are_those_of_the_shipped_librarys_check(
    project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("own", project_root / "libraries/evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "own", module)
    spec.loader.exec_module(module)
    for name, form in FORMS.items():
        assert [form(text) for text in TEXTS] == [module.FORMS[name](text) for text in TEXTS]


def test_an_objective_that_only_its_teacher_judges_is_named(board_library: Path) -> None:
    judges = judges_of(Library.load(board_library))
    assert judges.self_judged == ("kind", "short", "plain")
    (short, long) = judges.judge(["a", "a"], ["b", "b b b b b b b b"])
    assert short.meaning["kind"] > long.meaning["kind"]  # the tiny rule prefers few characters
    assert judges.judge([], []) == []


def test_the_shipped_librarys_judges_taught_nobody(project_root: Path) -> None:
    from palate.library.folder import LibraryFolder

    files = LibraryFolder.open(project_root / "libraries/smollm2-135m")

    class Opened:
        manifest = files.manifest
        method_table: object | None = None

    Opened.files = files
    judges = judges_of(Opened)
    assert judges.self_judged == ()
    assert set(judges.meaning) == {"elementary", "expert", "friendly", "unfriendly"}
    assert set(judges.form) == set(files.manifest.objective_names)
    assert judges.known_to_auto == ()
    Opened.method_table = object()  # which the held-back rewards measured
    assert set(judges_of(Opened).known_to_auto) == set(judges.meaning)


def test_an_objective_without_any_judge_is_refused(
    board_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library.load(board_library)
    monkeypatch.setattr("research.board.judges.RULE", "none.json")
    with pytest.raises(FormatError, match="'kind' has neither a held-back reward"):
        judges_of(library)
