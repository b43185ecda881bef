"""The report as Markdown: tables by shape, cost, `auto`, what to choose, what failed."""

from pathlib import Path

from palate.core.templates import render_template
from palate.evaluate.advice import advice
from palate.evaluate.catalogue import entry_of
from palate.evaluate.compare import change_text, range_text, signed_text
from palate.evaluate.report import Report

TEMPLATES = Path(__file__).parent / "templates"


def render_markdown(report: Report) -> str:
    """The text; every number is in `report.json` too."""
    filters = {
        "title_of": lambda method: entry_of(method).title,
        "range": range_text,
        "signed": signed_text,
        "change": change_text,
        "nats": nats_text,
    }
    path = TEMPLATES / "evaluation.md.jinja"
    return render_template(path, filters, report=report, advice=advice(report))


def nats_text(value: float) -> str:
    """Nats with two digits; what rounds to nothing has no sign.

    Example:
        >>> nats_text(-0.0004)
        '0.00'
    """
    return f"{round(value, 2) + 0.0:.2f}"
