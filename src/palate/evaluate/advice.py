"""Which method to choose when: sentences drawn from the scoreboard's numbers."""

from palate.core.templates import render_sentences
from palate.evaluate.catalogue import BASE, entry_of, parse_name
from palate.evaluate.compare import is_choice, range_text
from palate.evaluate.report import TEMPLATES, Report

NEARLY_ONE_PASS = 1.01
LEAST_READ = 0.93  # share of well-formed answers below which a method is warned of
MOST_LISTED = 4
LARGE_SHARE = 0.8  # of the gain with the preference stated, that learning should reach


def advice(report: Report) -> list[str]:
    """Sentences, most important first; each carries the numbers that it rests on."""
    rivals = [s for s in report.scores if s.method != BASE and is_choice(s.method)]
    if not rivals:
        return []
    best = max(rivals, key=lambda score: score.utility.estimate)
    badly_formed = [s for s in rivals if s.well_formed is not None and s.well_formed < LEAST_READ]
    return render_sentences(
        TEMPLATES / "advice.txt.jinja",
        {"title": lambda score: entry_of(score.method).title, "range": range_text},
        report=report,
        differ=lambda one, other: report.matrix.is_significant(one.method, other.method),
        best=best,
        equals=[
            s
            for s in rivals
            if s is not best and not report.matrix.is_significant(best.method, s.method)
        ],
        cheap=[s for s in rivals if s.passes_per_token <= NEARLY_ONE_PASS],
        silent=[s for s in rivals if not entry_of(s.method).reads_words],
        untrained=[s for s in rivals if parse_name(s.method).method == "prompt"],
        learned=[_comparisons(report, m) for m in dict.fromkeys(p.method for p in report.learning)],
        broken=sorted(badly_formed, key=lambda s: (s.well_formed, s.method))[:MOST_LISTED],
    )


def _comparisons(report: Report, method: str) -> str:
    points = [point for point in report.learning if point.method == method]
    title, last = entry_of(method).title, points[-1]
    first = next((point for point in points if _gains(report, point.name)), None)
    if first is None:
        return (
            f"{title}: up to {last.n_comparisons} comparisons a learned belief is not "
            f"significantly different from the base ({range_text(last.difference.interval)}); let "
            "users state their preference instead."
        )
    sentence = (
        f"{title}, where the preference must be learned: {first.n_comparisons} comparisons gain "
        f"{range_text(first.difference.interval)} over the base"
    )
    if last is not first:
        sentence += f" and {last.n_comparisons} gain {range_text(last.difference.interval)}"
    stated = report.score(method)
    if stated is None or stated.gain is None or stated.gain.interval.estimate <= 0:
        return sentence + "."
    whole = stated.gain.interval.estimate
    sentence += f", {last.difference.interval.estimate / whole:.0%} of what a stated one gains"
    if not any(p.difference.interval.estimate >= LARGE_SHARE * whole for p in points):
        sentence += "; a stated preference is worth more than these comparisons"
    return sentence + "."


def _gains(report: Report, method: str) -> bool:
    """Whether the gain over the base is significant after adjustment for the whole table."""
    score = report.score(method)
    return score is not None and score.gain is not None and score.gain.is_gain
