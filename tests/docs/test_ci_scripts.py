"""What CI's own scripts decide: which licences are refused, where the image's folders lie."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest


def script(project_root: Path, name: str) -> ModuleType:
    spec = spec_from_file_location(name, project_root / f".ci/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("licence", "extra", "words"),
    [
        ("MIT", "train", ""),
        ("MPL-2.0 AND MIT", "", ""),
        ("", "train", "has no licence"),
        ("GPL-3.0-or-later", "dev", "is under GPL-3.0-or-later"),
        ("AGPL-3.0-only", "postgres", "is under AGPL-3.0-only"),
        ("GNU General Public License v2 (GPLv2)", "postgres", "is under GNU General"),
        ("LGPL-3.0-only", "postgres", ""),
        ("LGPL-3.0-only", "serve", "which only the extra postgres may bring"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "postgres", ""),
        ("GNU Lesser General Public License v3 (LGPLv3)", "train", "only the extra postgres"),
        ("LGPL-2.1-only AND GPL-2.0-only", "postgres", "is under LGPL-2.1-only AND GPL"),
    ],
)
def test_a_licence_is_refused_where_it_may_not_stand(
    project_root: Path, licence: str, extra: str, words: str
) -> None:
    fault = script(project_root, "licences").fault_of(licence, extra=extra)
    assert (words in fault) if words else (fault == "")


def test_the_table_of_licences_has_every_locked_extra(project_root: Path) -> None:
    module = script(project_root, "licences")
    page = (project_root / "docs/licences.md").read_text()
    for extra in module.EXTRAS:
        assert f"## `palate[{extra}]`" in page or not extra
    lgpl = [line for line in page.splitlines() if line.startswith("|") and "LGPL" in line]
    assert {line.split("|")[1].strip() for line in lgpl} == {"psycopg", "psycopg-binary"}
    assert page.index("## `palate[postgres]`") < page.index(lgpl[0]) < page.index("palate[plots]")


def test_a_table_that_is_not_current_is_a_fault(
    project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    module = script(project_root, "licences")
    monkeypatch.setattr(module, "table", lambda: ("new\n", []))
    monkeypatch.setattr(module, "TABLE", tmp_path / "licences.md")
    (tmp_path / "licences.md").write_text("old\n")
    monkeypatch.setattr(sys, "argv", ["licences.py", "--check"])
    assert module.main() == 1
    assert "run `make licences`" in capsys.readouterr().err
    (tmp_path / "licences.md").write_text("new\n")
    assert module.main() == 0


def test_the_images_folders_lie_below_build(project_root: Path) -> None:
    module = script(project_root, "image")
    image = module.IMAGE
    placed = module.placed("/opt/palate/bin/pip install -r /src/locks/run.txt /src")
    assert placed == f"{image}/opt/palate/bin/pip install -r {image}/src/locks/run.txt {image}/src"
    for other in ("https://x.org/src/a", "/usr/src/a", "/srcs"):
        assert module.placed(other) == other


def test_a_step_is_read_whole_and_comments_are_not(project_root: Path) -> None:
    text = '# no\nRUN a \\\n    && b\n\nCMD ["c"]\n'
    assert script(project_root, "image").steps_of(text) == [("RUN", "a && b"), ("CMD", '["c"]')]
