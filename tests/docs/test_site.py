"""The site's references say what the code says, its pages are all reached, its figures are ours."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

import palate
from palate.build.run_file import RunSettings
from palate.serve.settings import ServeSettings

NUMBER = re.compile(r"(?<![\w.])[+-]?\d+\.\d+(?![\w.]*\.?\d)")


@pytest.fixture(scope="module", autouse=True)
def _builders(project_root: Path) -> Iterator[None]:
    """The scripts that make the references, as the site's build imports them."""
    folder = str(project_root / "docs/_build")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


def keys_of(settings: type[BaseModel]) -> set[str]:
    return set(settings.model_fields)


def table_below(page: str, title: str) -> str:
    return page.split(f"{title} {{ #", 1)[1].split("\n#", 1)[0]


@pytest.mark.parametrize("settings", [RunSettings, ServeSettings])
def test_the_reference_of_run_files_has_every_key(
    project_root: Path, settings: type[BaseModel]
) -> None:
    from settings_reference import settings_page

    page = settings_page(project_root / "src")
    table = table_below(page, settings.__name__)
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.M)) == keys_of(settings)


def test_a_key_is_described_by_the_comment_beside_or_above_it(tmp_path: Path) -> None:
    from settings_reference import sections

    (tmp_path / "palate").mkdir()
    (tmp_path / "palate/one.py").write_text(
        "class One(Settings):\n"
        '    """First line.\n\n    More."""\n\n'
        "    # above\n    # it\n    a: int = Field(default=3, ge=1)\n    b: str  # beside\n"
    )
    (one,) = sections(tmp_path).values()
    assert one.text == "First line."
    a, b = one.keys
    assert (a.name, a.default, a.bounds, a.text) == ("a", "3", "ge=1", "above it")
    assert (b.name, b.default, b.bounds, b.text) == ("b", "", "", "beside")


def test_the_reference_of_commands_has_every_command_and_option() -> None:
    from command_reference import command_page, commands

    page = command_page()
    every = list(commands())
    assert len(every) > 20
    for words, command in every:
        table = page.split(f"## `{words}`\n", 1)[1].split("\n## ", 1)[0]
        for parameter in command.params:
            shown = parameter.name.upper() if parameter.param_type_name == "argument" else None
            assert f"`{shown or parameter.opts[0]}`" in table, f"{words}: {parameter.name}"


@pytest.mark.slow  # imports the server
def test_the_reference_of_http_has_every_request_and_object() -> None:
    from http_reference import http_page, openapi

    described, page = openapi(), http_page()
    for path, operations in described["paths"].items():
        for verb in operations:
            assert f"### `{verb.upper()} {path}`" in page
    anchors = set(re.findall(r"\{ #(\w+) \}", page))
    assert set(re.findall(r"\]\(#(\w+)\)", page)) <= anchors
    assert {name.lower() for name in described["components"]["schemas"]} == anchors


def test_the_reference_of_python_has_every_name_of_the_face(project_root: Path) -> None:
    from python_reference import face, python_page

    assert set(face(project_root / "src")) == set(palate.__all__)
    page = python_page(project_root / "src")
    for name in palate.__all__:
        assert f"      heading: palate.{name}\n" in page


def pages_of(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from pages_of(inner)


def test_every_document_and_report_is_reached_from_the_sites_menu(project_root: Path) -> None:
    listed = set(pages_of(yaml.safe_load((project_root / "mkdocs.yml").read_text())["nav"]))
    paths = [*project_root.glob("docs/**/*.md"), *project_root.glob("reports/*.md")]
    assert {str(path.relative_to(project_root)) for path in paths} <= listed


def test_the_site_names_no_other_server(project_root: Path) -> None:
    content = yaml.safe_load((project_root / "mkdocs.yml").read_text())
    assert content["theme"]["font"] is False
    assert "offline" in content["plugins"]
    for script in [*content["extra"]["polyfills"], *content["extra_css"]]:
        assert (project_root / "docs/_build" / script).is_file()


def test_every_figure_on_a_papers_page_stands_in_a_report_or_another_document(
    project_root: Path,
) -> None:
    sources = [*project_root.glob("reports/*.md"), *project_root.glob("docs/*.md")]
    known = {number.lstrip("+-") for path in sources for number in NUMBER.findall(path.read_text())}
    n_checked = 0
    for path in project_root.glob("docs/papers/*.md"):
        text = re.sub(r"\d{4}\.\d{5}", "", path.read_text())  # addresses of papers
        for number in NUMBER.findall(text):
            assert number.lstrip("+-") in known, f"{path.name}: {number}"
            n_checked += 1
    assert n_checked > 60


def test_links_are_followed_to_files_and_folders_get_a_page(tmp_path: Path) -> None:
    from stage import folder_page, links, with_folders_as_pages

    (tmp_path / "code").mkdir()
    (tmp_path / "code/a.py").write_text("")
    text = "[a](b.md#c), [code](code), ![p](p.png), [out](https://example.org)"
    assert links(text) == ["b.md", "code", "p.png"]
    led = with_folders_as_pages(text, source=tmp_path / "page.md")
    assert "[code](code/README.md)" in led
    assert folder_page(tmp_path / "code") == "# code\n\n- [a.py](a.py)\n"


def test_the_start_page_names_every_extra_for_users(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    table = (project_root / "docs/start.md").read_text().split("| extra | for |", 1)[1]
    named = set(re.findall(r"^\| `(\w+)` \|", table, flags=re.M))
    assert named == set(project["optional-dependencies"]) - {"dev"}
