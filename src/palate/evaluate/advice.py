"""Which way to choose when: sentences drawn from the scoreboard's numbers."""

from palate.evaluate.catalogue import entry_of
from palate.evaluate.report import Report
from palate.evaluate.scoreboard import BASE, WayScore
from palate.metrics.intervals import Interval

NEARLY_ONE_PASS = 1.01
LEVEL = 0.05
LEAST_READ = 0.93  # share of well-formed answers below which a way is warned of
MOST_LISTED = 4
LARGE_SHARE = 0.8  # of the gain with the preference known, that learning is asked for


def advice(report: Report) -> list[str]:
    """Sentences, most important first; each carries the numbers that it rests on."""
    rivals = [
        score
        for score in report.scores
        if score.way != BASE and not entry_of(score.way).is_ceiling and "@" not in score.way
    ]
    if not rivals:
        return []
    found = [_best(report, rivals), _one_pass(report, rivals), _unspoken(report, rivals)]
    found += [_untrained(rivals), _portfolio(report), _comparisons(report), _text(rivals)]
    return [sentence for sentence in found if sentence]


def _best(report: Report, rivals: list[WayScore]) -> str:
    best = max(rivals, key=lambda score: score.utility.estimate)
    equals = [score for score in rivals if score is not best and not _settled(report, best, score)]
    sentence = (
        f"For the highest utility choose {_name(best)}: {_range(best.utility)}, "
        f"{best.gain.interval.estimate:+.3f} over the base, at {best.passes:.1f} passes of the "
        f"model per token."
    )
    if equals:
        others = _listed([f"{_name(s)} ({s.utility.estimate:.3f})" for s in equals])
        sentence += f" Not told apart from it after correction: {others}."
    return sentence


def _one_pass(report: Report, rivals: list[WayScore]) -> str:
    cheap = [score for score in rivals if score.passes <= NEARLY_ONE_PASS]
    best = max(rivals, key=lambda score: score.utility.estimate)
    if not cheap:
        return ""
    chosen = max(cheap, key=lambda score: score.utility.estimate)
    if chosen is best:
        return "It is also the best that runs in one pass, so cost is no reason for another."
    state = "clearly" if _settled(report, best, chosen) else "not beyond doubt"
    loss = best.utility.estimate - chosen.utility.estimate
    kept = chosen.facts.get("bytes_per_person", 0.0)
    return (
        f"Where one pass per token is all there is, choose {_name(chosen)}: "
        f"{_range(chosen.utility)}, {loss:.3f} below the best ({state}), {kept:,.0f} bytes kept "
        "per person."
    )


def _unspoken(report: Report, rivals: list[WayScore]) -> str:
    """The best of those whose prompt does not hold the wish, unless it is the best of all."""
    silent = [score for score in rivals if not entry_of(score.way).reads_wish]
    best = max(rivals, key=lambda score: score.utility.estimate)
    if not silent or best in silent:
        return ""
    chosen = max(silent, key=lambda score: score.utility.estimate)
    cheap = [score for score in silent if score.passes <= NEARLY_ONE_PASS]
    sentence = (
        f"Where the wish is known as numbers only and cannot be put into the prompt, choose "
        f"{_name(chosen)}: {_range(chosen.utility)} at {chosen.passes:.1f} passes"
    )
    if cheap and chosen not in cheap:
        single = max(cheap, key=lambda score: score.utility.estimate)
        state = "told" if _settled(report, chosen, single) else "not told"
        sentence += (
            f"; in one pass {_name(single)}, {_range(single.utility)}, {state} apart from it"
        )
    return sentence + "."


def _untrained(rivals: list[WayScore]) -> str:
    free = [score for score in rivals if score.way in ("prompting", "best-of-n")]
    if not free:
        return ""
    parts = [
        f"{_name(score)} reaches {_range(score.utility)} at {score.passes:.1f} passes"
        for score in free
    ]
    return f"Where no expert can be trained: {_listed(parts)}."


def _portfolio(report: Report) -> str:
    if not report.gap:
        return ""
    small, large = report.gap[0], report.gap[-1]
    # "not told from zero" is said without correction, which would say it sooner
    enough = next(
        (
            p
            for p in report.gap
            if p.difference.interval.low <= 0 or not p.difference.is_significant(level=LEVEL)
        ),
        None,
    )
    sentence = (
        f"Where only whole adapters can be served, take a portfolio: with {small.x} member the "
        f"mean loss against an expert of one's own is {_range(small.difference.interval)}, with "
        f"{large.x} it is {_range(large.difference.interval)}"
    )
    if enough is not None:
        plural = "s" if enough.x > 1 else ""
        return f"{sentence}; from {enough.x} member{plural} on the loss is not told from zero."
    return f"{sentence}; at every size a loss remains beyond doubt."


def _comparisons(report: Report) -> str:
    if not report.learning:
        return ""
    known = report.score("soup")
    first = next((p for p in report.learning if _gains(report, f"soup@{p.x}")), None)
    last = report.learning[-1]
    if first is None:
        return (
            f"Up to {last.x} comparisons a learned preference does not gain beyond doubt "
            f"({_range(last.difference.interval)}); ask people for their preference instead."
        )
    sentence = (
        f"Where the preference must be learned, {first.x} comparisons gain "
        f"{_range(first.difference.interval)} over the base and {last.x} gain "
        f"{_range(last.difference.interval)}"
    )
    if known is not None and known.gain.interval.estimate > 0:
        whole = known.gain.interval.estimate
        sentence += f", {last.difference.interval.estimate / whole:.0%} of what knowing it gains"
        reached = [
            p.x for p in report.learning if p.difference.interval.estimate >= LARGE_SHARE * whole
        ]
        if not reached:
            sentence += "; asking people outright is worth more than these comparisons"
    return sentence + "."


def _text(rivals: list[WayScore]) -> str:
    read = {score.way: score.well_formed for score in rivals if score.well_formed is not None}
    broken = sorted((share, way) for way, share in read.items() if share < LEAST_READ)
    if not broken:
        return ""
    parts = [f"{entry_of(way).title} {share:.1%}" for share, way in broken[:MOST_LISTED]]
    return f"Mind the text: answers stay well-formed least often in {_listed(parts)}."


def _gains(report: Report, way: str) -> bool:
    """Whether the gain over the base is beyond doubt after correction for the whole table."""
    score = report.score(way)
    return score is not None and score.gain.interval.low > 0 and score.p_adjusted <= LEVEL


def _settled(report: Report, first: WayScore, second: WayScore) -> bool:
    ways = report.matrix.ways
    if first.way not in ways or second.way not in ways:
        return True
    return report.matrix.is_settled(first.way, second.way, level=LEVEL)


def _name(score: WayScore) -> str:
    return entry_of(score.way).title


def _range(interval: Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
