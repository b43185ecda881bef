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
        title_of=lambda method: entry_of(method).title,
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
        large_share=LARGE_SHARE,
        broken=sorted(badly_formed, key=lambda s: (s.well_formed, s.method))[:MOST_LISTED],
    )
