"""The demo's report as one HTML file: no script, no font and no picture from elsewhere."""

from collections.abc import Iterable
from pathlib import Path

from palate.core.templates import render_template
from palate.core.types import Interval
from palate.demo.report import DemoReport
from palate.mixture.explain import render_legend, render_tokens


def render_page(report: DemoReport) -> str:
    """The page; texts are escaped."""
    gains, learned, tokens, rule = report.gains, report.learned, report.tokens, report.rule
    rows = [] if gains is None else [*gains.users, gains.together]
    bars = [bar for row in rows for bar in (row.over_base, row.over_prompt, row.predicted)]
    beliefs = [] if learned is None else learned.wanted
    return render_template(
        Path(__file__).parent / "templates/demo.html.jinja",
        {"interval": interval_text},
        report=report,
        place=_percent,
        rows=rows,
        gain_ends=_ends(bars),
        belief_ends=_ends(one for row in beliefs for one in (row.before, row.after)),
        rule_ends=_ends([] if rule is None else (rule.before, rule.after)),
        legend="" if tokens is None else render_legend(tokens.explanation),
        tokens="" if tokens is None else render_tokens(tokens.explanation),
    )


def interval_text(interval: Interval | None) -> str:
    """An interval as `+0.12 [+0.03, +0.21]`; a dash where there is none."""
    if interval is None:
        return "-"
    return f"{interval.estimate:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def _ends(intervals: Iterable[Interval | None]) -> tuple[float, float]:
    """What an axis must hold, zero included."""
    known = [one for one in intervals if one is not None]
    low, high = (
        min((one.low for one in known), default=0),
        max((one.high for one in known), default=1),
    )
    return min(low, 0.0), max(high, 0.0, low + 1e-9)


def _percent(value: float, ends: tuple[float, float]) -> str:
    """Where a value stands on an axis, percent from its left end."""
    return f"{100 * (value - ends[0]) / (ends[1] - ends[0]):.1f}%"
