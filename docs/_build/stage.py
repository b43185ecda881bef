"""Lay out the site's pages in `build/site/pages`, as `mkdocs.yml` expects them.

    .venv/bin/python docs/_build/stage.py       `make site` does this, then builds the site

Documents stay where they are and keep their links: the pages are the repository's Markdown files
at their own paths, and whatever these link to. Beside them stand the references that are made from
the code: `reference/python.md`, `run-files.md`, `commands.md`, `http.md` and `openapi.json`.
"""

import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from command_reference import command_page
from http_reference import http_page, openapi_text
from python_reference import python_page
from settings_reference import settings_page

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**/*.md", "reports/*.md"),
    *("libraries/README.md", "examples/**/README.md", "benchmarks/**/README.md"),
)
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?(?:\s[^)]*)?\))")


def links(text: str) -> list[str]:
    """Relative targets of a page's links and pictures, without anchors."""
    targets = [match[2] for match in LINK.finditer(text)]
    return [one for one in targets if not one.startswith(("http:", "https:", "mailto:"))]


def with_folders_as_pages(text: str, *, source: Path) -> str:
    """The page with links to a folder led to that folder's page."""

    def lead(match: re.Match[str]) -> str:
        target = match[2]
        is_folder = not target.startswith("http") and (source.parent / target).is_dir()
        return f"{match[1]}{target.rstrip('/') + '/README.md' if is_folder else target}{match[3]}"

    return LINK.sub(lead, text)


def folder_page(folder: Path) -> str:
    """A page for a folder that has none of its own: its files."""
    rows = [f"- [{path.name}]({path.name})" for path in sorted(folder.iterdir()) if path.is_file()]
    return "\n".join([f"# {folder.name}", "", *rows, ""])


def stage(root: Path, out: Path) -> None:
    """Write all pages below `out`, which is emptied first."""
    shutil.rmtree(out, ignore_errors=True)
    left = [path for pattern in PAGES for path in sorted(root.glob(pattern))]
    seen: set[Path] = set()
    while left:
        path = left.pop()
        is_folder = path.name == "README.md" and not path.exists() and path.parent.is_dir()
        if path in seen or not (path.exists() or is_folder):  # mkdocs refuses a link to nothing
            continue
        seen.add(path)
        target = out / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".md":
            shutil.copyfile(path, target)
            continue
        text = folder_page(path.parent) if is_folder else path.read_text()
        text = with_folders_as_pages(text, source=path)
        target.write_text(text)
        left += [(path.parent / one).resolve() for one in links(text)]
    shutil.copytree(Path(__file__).with_name("site"), out / "site")  # its style and script
    reference = out / "reference"
    reference.mkdir()
    (reference / "python.md").write_text(python_page(root / "src"))
    (reference / "run-files.md").write_text(settings_page(root / "src"))
    (reference / "commands.md").write_text(command_page())
    (reference / "http.md").write_text(http_page())
    (reference / "openapi.json").write_text(openapi_text())


if __name__ == "__main__":
    stage(ROOT, ROOT / "build/site/pages")
