"""Which method to choose when: sentences drawn from the scoreboard's numbers."""

from palate.evaluate.catalogue import BASE, entry_of
from palate.evaluate.compare import is_choice, range_text
from palate.evaluate.report import Report
from palate.evaluate.scoreboard import MethodScore

NEARLY_ONE_PASS = 1.01
LEAST_READ = 0.93  # share of well-formed answers below which a method is warned of
MOST_LISTED = 4
LARGE_SHARE = 0.8  # of the gain with the preference stated, that learning should reach


def advice(report: Report) -> list[str]:
    """Sentences, most important first; each carries the numbers that it rests on."""
    rivals = [s for s in report.scores if s.method != BASE and is_choice(s.method)]
    if not rivals:
        return []
    sentences = [_best(report, rivals), _one_pass(report, rivals)]
    sentences += [] if report.auto is None else list(report.auto.sentences)
    sentences += [_unspoken(report, rivals), _untrained(rivals), _portfolio(report)]
    learned = dict.fromkeys(point.method for point in report.learning)
    sentences += [_comparisons(report, method) for method in learned]
    sentences.append(_text(rivals))
    return [sentence for sentence in sentences if sentence]


def _best(report: Report, rivals: list[MethodScore]) -> str:
    best = max(rivals, key=lambda score: score.utility.estimate)
    equals = [s for s in rivals if s is not best and not _differ(report, best, s)]
    gain = best.utility.estimate if best.gain is None else best.gain.interval.estimate
    sentence = (
        f"For the highest utility choose {_name(best)}: {range_text(best.utility)}, "
        f"{gain:+.3f} over the base, at {best.passes_per_token:.1f} passes per token."
    )
    if equals:
        others = _listed([f"{_name(s)} ({s.utility.estimate:.3f})" for s in equals])
        sentence += f" Not significantly different from it: {others}."
    return sentence


def _one_pass(report: Report, rivals: list[MethodScore]) -> str:
    cheap = [score for score in rivals if score.passes_per_token <= NEARLY_ONE_PASS]
    best = max(rivals, key=lambda score: score.utility.estimate)
    if not cheap:
        return ""
    choice = max(cheap, key=lambda score: score.utility.estimate)
    if choice is best:
        return "It is also the best that runs in one pass, so cost is no reason for another."
    state = "significantly" if _differ(report, best, choice) else "not significantly"
    loss = best.utility.estimate - choice.utility.estimate
    n_bytes = choice.facts.get("bytes_per_user", 0.0)
    return (
        f"Where one pass per token is all there is, choose {_name(choice)}: "
        f"{range_text(choice.utility)}, {loss:.3f} below the best ({state}), {n_bytes:,.0f} bytes "
        "kept per user."
    )


def _unspoken(report: Report, rivals: list[MethodScore]) -> str:
    """The best of those whose prompt holds no words, unless it is the best of all."""
    silent = [score for score in rivals if not entry_of(score.method).reads_words]
    best = max(rivals, key=lambda score: score.utility.estimate)
    if not silent or best in silent:
        return ""
    choice = max(silent, key=lambda score: score.utility.estimate)
    cheap = [score for score in silent if score.passes_per_token <= NEARLY_ONE_PASS]
    sentence = (
        f"Where the preference cannot be put into the prompt, choose {_name(choice)}: "
        f"{range_text(choice.utility)} at {choice.passes_per_token:.1f} passes"
    )
    if cheap and choice not in cheap:
        single = max(cheap, key=lambda score: score.utility.estimate)
        state = "" if _differ(report, choice, single) else "not "
        sentence += (
            f"; in one pass {_name(single)}, {range_text(single.utility)}, {state}significantly "
            "different from it"
        )
    return sentence + "."


def _untrained(rivals: list[MethodScore]) -> str:
    free = [s for s in rivals if s.method == "prompt" or s.method.startswith("prompt+best-of-")]
    if not free:
        return ""
    parts = [
        f"{_name(s)} reaches {range_text(s.utility)} at {s.passes_per_token:.1f} passes"
        for s in free
    ]
    return f"Where no expert can be trained: {_listed(parts)}."


def _portfolio(report: Report) -> str:
    score = report.score("portfolio")
    if score is None or score.gain is None:
        return ""
    state = "" if score.gain.is_significant else "not "
    return (
        f"Where only whole adapters can be served, {_name(score)} reaches "
        f"{range_text(score.utility)}, {state}significantly different from the base."
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


def _text(rivals: list[MethodScore]) -> str:
    read = {score.method: score.well_formed for score in rivals if score.well_formed is not None}
    broken = sorted((share, method) for method, share in read.items() if share < LEAST_READ)
    if not broken:
        return ""
    parts = [f"{entry_of(method).title} {share:.1%}" for share, method in broken[:MOST_LISTED]]
    return f"Mind the text: answers stay well-formed least often in {_listed(parts)}."


def _gains(report: Report, method: str) -> bool:
    """Whether the gain over the base is significant after adjustment for the whole table."""
    score = report.score(method)
    return score is not None and score.gain is not None and score.gain.is_gain


def _differ(report: Report, first: MethodScore, second: MethodScore) -> bool:
    return report.matrix.is_significant(first.method, second.method)


def _name(score: MethodScore) -> str:
    return entry_of(score.method).title


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
