"""The page's files: everything in the package, nothing inline, nothing from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

MAX_LINES = 400


@pytest.fixture(scope="module")
def web(project_root: Path) -> Path:
    return project_root / "src/palate/serve/web"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def tags(web: Path) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed((web / "index.html").read_text())
    return parser.tags


def test_the_page_has_no_inline_script_style_or_handler(
    tags: list[tuple[str, dict[str, str | None]]],
) -> None:
    assert not [tag for tag, _ in tags if tag == "style"]
    assert all(attributes.get("src") for tag, attributes in tags if tag == "script")
    names = {name for _, attributes in tags for name in attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}


def test_everything_the_page_loads_is_in_the_package(
    web: Path, tags: list[tuple[str, dict[str, str | None]]]
) -> None:
    loaded = [
        str(attributes.get("href") or attributes.get("src"))
        for tag, attributes in tags
        if tag in ("link", "script", "use", "img")
    ]
    assert len(loaded) > 10
    assert [name for name in loaded if not (web / name.partition("#")[0]).is_file()] == []


def test_no_file_names_an_address_elsewhere(web: Path) -> None:
    allowed = {"http://www.w3.org/2000/svg"}  # the name of a namespace; nothing is fetched
    for path in web.rglob("*.*"):
        found = set(re.findall(r"https?://[^\s\"'<>)]+", path.read_text()))
        assert found <= allowed, path


def test_every_import_is_of_a_file_that_is_there_and_all_are_used(web: Path) -> None:
    scripts = set((web / "js").glob("*.js"))
    imported = set()
    for path in scripts:
        text = path.read_text()
        for name in re.findall(r"(?:from|import\()\s*\"(\./[\w-]+\.js)\"", text):
            target = (path.parent / name).resolve()
            assert target.is_file(), f"{path.name} imports {name}"
            imported.add(target)
    roots = {web / "js" / "main.js", web / "js" / "first.js"}
    assert scripts - imported - roots == set()


def test_every_icon_that_is_used_is_drawn(web: Path) -> None:
    drawn = set(re.findall(r"<symbol id=\"([\w-]+)\"", (web / "icons.svg").read_text()))
    used = set(re.findall(r"icons\.svg#([\w-]+)\"", (web / "index.html").read_text()))
    for path in (web / "js").glob("*.js"):
        used |= set(re.findall(r"\bicon\(\"([\w-]+)\"", path.read_text()))
    assert used <= drawn


def test_files_are_short_enough_to_read(web: Path) -> None:
    long = [p.name for p in web.rglob("*.*") if len(p.read_text().splitlines()) > MAX_LINES]
    assert long == []


def test_no_module_writes_html_from_text(web: Path) -> None:
    for path in (web / "js").glob("*.js"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_every_colour_has_one_for_dark_pages(web: Path) -> None:
    rows = dict(re.findall(r"--([\w-]+): (.+);", (web / "css/tokens.css").read_text()))
    colours = {name: value for name, value in rows.items() if "#" in value}
    assert len(colours) > 20
    assert [name for name, value in colours.items() if "light-dark(" not in value] == ["warm"]
