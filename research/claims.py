"""What three papers claim and what was found here, as tables of `docs/papers.md` and its pages.

    python -m research.claims            writes the tables that stand between the pages' marks
    python -m research.claims --check    fails where one is not the file's

One entry of `docs/papers/claims.yaml` is one row; every number of a figure stands in its source.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import typer
import yaml

from palate.core.errors import FormatError
from palate.core.files import read_text, write_text_atomic
from research.command_line import run

ROOT = Path(__file__).parents[1]
CLAIMS, PAGE = Path("docs/papers/claims.yaml"), Path("docs/papers.md")
BEGIN, END = "<!-- claims: python -m research.claims -->", "<!-- end of claims -->"
VERDICTS = ("reproduced", "not reproduced", "not comparable", "not tested")
PAGES = {"PALM": "palm", "Spectral Souping": "spectral-souping", "MoPE": "mope"}
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass(frozen=True)
class Claim:
    """One claim of a paper."""

    paper: str
    claim: str
    test: str  # how it was tested here
    verdict: str  # one of `VERDICTS`
    figure: str = ""  # what came out, as the source prints it; empty only where not tested
    source: str = ""  # the report or test that holds the figure, from the project's folder
    why: str = ""  # the verdict's limit or reason
    command: str = ""  # that makes the source


def read_claims(folder: Path = ROOT) -> list[Claim]:
    """The claims of the file, in order.

    Raises:
        FormatError: an entry has other keys, an unknown paper or verdict, or a figure without a
            source and a command; or a source lacks a number of its figure.
    """
    rows = cast(
        "list[dict[str, Any]]", yaml.safe_load(read_text(folder / CLAIMS, what="file of claims"))
    )
    claims: list[Claim] = []
    for place, row in enumerate(rows, start=1):
        try:
            claim = Claim(**row)
        except TypeError as error:
            raise FormatError(f"Claim {place} of {str(CLAIMS)!r} is no claim: {error}.") from error
        fault = _fault(claim, folder)
        if fault:
            raise FormatError(f"Claim {place} of {str(CLAIMS)!r}, {claim.claim!r}, {fault}.")
        claims.append(claim)
    return claims


def _fault(claim: Claim, folder: Path) -> str:
    if claim.paper not in PAGES:
        return f"is of the paper {claim.paper!r}; use {', '.join(PAGES)}"
    if claim.verdict not in VERDICTS:
        return f"has the verdict {claim.verdict!r}; use {', '.join(VERDICTS)}"
    is_tested = claim.verdict != "not tested"
    if is_tested != all((claim.figure, claim.source, claim.command)):
        return "needs figure, source and command, or the verdict 'not tested' and none of them"
    if claim.verdict == "not comparable" and not claim.why:
        return "is not comparable without a reason; say why"
    if not is_tested:
        return ""
    if not (folder / claim.source).is_file():
        return f"has the source {claim.source!r}, which does not exist"
    text = read_text(folder / claim.source, what="source")
    known = set(NUMBER.findall(text))
    missing = [number for number in NUMBER.findall(claim.figure) if number not in known]
    return f"has the number {missing[0]}, which {claim.source!r} lacks" if missing else ""


def as_table(claims: list[Claim], *, folder: str = "..", has_paper: bool = True) -> str:
    """How many have which verdict, and a row for every claim.

    `folder` is the project's, as seen from the page.
    """
    counts = Counter(claim.verdict for claim in claims)
    heads = ["claim", "our test", "figure", "verdict", "command"]
    heads = ["paper", *heads] if has_paper else heads
    lines = [
        f"{len(claims)} claims: "
        + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
        + ".",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for claim in claims:
        is_report = claim.source.startswith("reports/")
        where = f" ([report]({folder}/{claim.source}))" if is_report else ""
        verdict = f"**{claim.verdict}**" + (f": {claim.why}" if claim.why else "")
        command = f"`{claim.command}`" if claim.command else ""
        cells = [claim.claim, claim.test, claim.figure + where, verdict, command]
        if has_paper:
            cells.insert(0, f"[{claim.paper}](papers/{PAGES[claim.paper]}.md)")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def pages(folder: Path = ROOT) -> dict[Path, str]:
    """By path in the project, the page of all claims and each paper's, with their tables."""
    claims = read_claims(folder)
    tables = {PAGE: as_table(claims)}
    for paper, name in PAGES.items():
        own = [claim for claim in claims if claim.paper == paper]
        tables[PAGE.with_suffix("") / f"{name}.md"] = as_table(own, folder="../..", has_paper=False)
    return {
        path: page_with(table, read_text(folder / path, what="page"), path=path)
        for path, table in tables.items()
    }


def page_with(table: str, page: str, *, path: Path) -> str:
    """The page with the table between its marks; FormatError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise FormatError(f"The page {str(path)!r} lacks the marks {BEGIN!r} and {END!r}.")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main(
    *,
    is_check: Annotated[bool, typer.Option("--check", help="Only fail if a table is old.")] = False,
) -> None:
    """Write the tables of claims into docs/papers.md and the papers' pages, or check them."""
    for path, wanted in pages().items():
        if is_check and wanted != read_text(ROOT / path, what="page"):
            raise FormatError(
                f"The table of {str(path)!r} is old; run 'python -m research.claims'."
            )
        write_text_atomic(ROOT / path, wanted)


if __name__ == "__main__":
    run(main)
