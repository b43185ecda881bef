"""From rows to `report.html`, `report.md` and `report.json`, without any model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.core.files import write_json, write_text_atomic
from palate.evaluate.markdown import render_markdown
from palate.evaluate.page import render_page
from palate.evaluate.report import Report, make_report
from palate.evaluate.rows import Results


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the rows say together.

    Attributes:
        report: Numbers.
        markdown: The same to read.
    """

    report: Report
    markdown: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return self.report.to_json()


def write_report(suite: dict[str, Any], results: Results, *, out: Path) -> Evaluation:
    """Write the three files into the folder.

    Raises:
        InvalidInputError: a method has no rows, or the methods share no cell.
    """
    report = make_report(suite, results)
    markdown = render_markdown(report)
    write_json(out / "report.json", report.to_json())
    write_text_atomic(out / "report.md", markdown)
    write_text_atomic(out / "report.html", render_page(report))
    return Evaluation(report, markdown)
