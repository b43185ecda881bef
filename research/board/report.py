"""The report of all rows: `board.json`, `board.md`, `board.html`."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palate.core.files import write_json, write_text_atomic
from palate.core.templates import render_template
from research.board import findings, learning
from research.board.judges import Judges
from research.board.methods import entrants
from research.board.rows import Fact, Row
from research.board.settings import FOLDER, BoardSettings
from research.board.tables import Tables, tables_of
from research.board.users import BoardUser
from research.figures import curve_panels

TEMPLATES = FOLDER / "templates"
MOST_LISTED = 6  # losses that are not significant, largest first
CURVES = {
    "comparisons": ("comparisons of the user", "Gain against comparisons"),
    "turns": ("earlier turns", "Gain against earlier turns"),
    "members": ("members of the portfolio", "Gain against members"),
}


@dataclass(frozen=True)
class About:
    """What the numbers are about, as the report says it."""

    settings: BoardSettings
    users: Sequence[BoardUser]
    judges: Judges
    missing: Sequence[str] = ()  # entrants that the library cannot serve
    # by method, win rates over the base by a language model, where one was asked
    language_judge: Mapping[str, Any] = field(default_factory=dict[str, Any])


def content_of(rows: Sequence[Row], facts: Sequence[Fact], about: About) -> dict[str, Any]:
    """Everything on the report as plain data.

    Raises:
        InvalidInputError: the base has no answers.
    """
    tables = tables_of(rows, about.users)
    names = {name for user in about.users for name in user.truth}
    has_form = names <= set(about.judges.form)
    by_form = tables_of(rows, about.users, judges=("form",)) if has_form else None
    content: dict[str, Any] = {
        "settings": about.settings.model_dump(mode="json"),
        "n_rows": len(tables.rows),
        "n_users": len({row.user for row in tables.rows}),
        "n_prompts": len({row.prompt for row in tables.rows}),
        "prompt_files": sorted({row.prompt.partition(":")[0] for row in tables.rows}),
        "seeds": sorted({row.seed for row in tables.rows}),
        "n_libraries": len({row.library for row in tables.rows}),
        "shapes": _shapes(tables),
        "judges": {
            "meaning": sorted(about.judges.meaning),
            "form": sorted(about.judges.form),
            "self_judged": list(about.judges.self_judged),
            "known_to_auto": sorted(about.judges.known_to_auto),
        },
        "missing": list(about.missing),
        "language_judge": dict(about.language_judge),
        "methods": _with_diversity(findings.method_rows(tables, facts), findings.diversity(tables)),
        "frontier": findings.frontier(tables),
        "winners": findings.winners(tables),
        "questions": findings.questions(tables, by_form),
        "losses": findings.losses(tables),
        "curves": learning.curves(tables),
        "shares_of_adapters": learning.shares_of_adapters(tables),
        "crossings": learning.crossings(tables),
        "words_and_comparisons": learning.words_and_comparisons(tables),
        "pairwise": findings.pairwise(tables),
        "shape_means": _shape_means(tables),
    }
    return {**content, "first": first_screen(content)}


def _with_diversity(
    methods: list[dict[str, Any]], diversity: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    by_method = {one["method"]: one for one in diversity}
    return [{**one, "diversity": by_method.get(one["name"])} for one in methods]


def _shapes(tables: Tables) -> dict[str, int]:
    shapes = [user.shape for user in tables.users.values()]
    return {shape: shapes.count(shape) for shape in dict.fromkeys(shapes)}


def _shape_means(tables: Tables) -> dict[str, dict[str, float]]:
    """Mean gain over the base by group of cells and method."""
    means: dict[str, dict[str, float]] = {}
    for where, keep in findings.groups(tables).items():
        means[where] = {}
        for name in (one for one in entrants() if one in tables and one != "base"):
            mine, theirs, cells = tables.pairs(name, "base", keep)
            if cells:
                means[where][name] = float((mine - theirs).mean())
    return means


def first_screen(content: Mapping[str, Any]) -> list[str]:
    """What has to be read: the questions, won or not, and where palate's own choice is behind."""
    sentences = [_answer(one) for one in content["questions"]]
    clear = [one for one in content["losses"] if one["verdict"] == "worse"]
    unclear = [one for one in content["losses"] if one["verdict"] != "worse"]
    sentences += [_loss(one) for one in clear]
    if unclear:
        unclear.sort(key=lambda one: one["estimate"])
        listed = ", ".join(
            f"{title(one['method'])} behind {title(one['rival'])} ({one['where']}, "
            f"{one['estimate']:+.2f})"
            for one in unclear[:MOST_LISTED]
        )
        n_more = len(unclear) - MOST_LISTED
        more = f", and {n_more} smaller ones" if n_more > 0 else ""
        sentences.append(f"Behind, but not significantly: {listed}{more}.")
    if not content["losses"]:
        sentences.append("In no group of cells is auto behind a rival of as many passes.")
    known = content["judges"]["known_to_auto"]
    if known:
        sentences.append(
            f"The judge of meaning of {', '.join(known)} also measured methods.json, from which "
            "auto chooses: on other prompts, but it flatters that choice. Measures of form had no "
            "part in it, so each question has its answer by form alone beside it."
        )
    flattered = content["judges"]["self_judged"]
    if flattered:
        sentences.append(
            f"Judged by the rule that taught the experts, which flatters them: "
            f"{', '.join(flattered)}."
        )
    return sentences


def _answer(one: Mapping[str, Any]) -> str:
    names = f"{title(one['first'])} against {title(one['second'])}, {one['where']}"
    form = f"; by form alone {starred(one['by_form'])}" if one["by_form"] else ""
    return f"{names}: {difference_text(one)}, {one['verdict']}{form}."


def _loss(one: Mapping[str, Any]) -> str:
    taken = ", ".join(f"{name} {share:.0%}" for name, share in one["taken"].items())
    return (
        f"LOSES: {title(one['method'])} is behind {title(one['rival'])}, {one['where']}: "
        f"{difference_text(one)}. It took {taken}; use {title(one['rival'])} there."
    )


def title(name: str) -> str:
    """A method's title."""
    return entrants()[name].title


def difference_text(one: Mapping[str, Any] | None) -> str:
    """A difference with its interval; empty where there is none."""
    if one is None:
        return ""
    return f"{one['estimate']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"


def starred(one: Mapping[str, Any] | None) -> str:
    """The same with a star where it is significant."""
    if one is None:
        return ""
    is_clear = one["verdict"] != "not significantly different"
    return difference_text(one) + (" *" if is_clear else "")


def rate_text(interval: Mapping[str, Any] | None) -> str:
    """A rate with its interval, in per cent."""
    if interval is None:
        return ""
    estimate, low, high = (100 * interval[name] for name in ("estimate", "low", "high"))
    return f"{estimate:.0f} [{low:.0f}, {high:.0f}]"


def cell_text(best: Mapping[str, Any] | None) -> str:
    """A winner in a table: title, gain, and how many others may be as good."""
    if best is None:
        return "-"
    others = [title(name) for name in best["not_significantly_different"]]
    elsewhere = best["gain_on_other_prompts"]
    second = "" if elsewhere is None else f" / {elsewhere:+.2f}"
    gain = f"{title(best['method'])} ({best['gain']:+.2f}{second})"
    if not others:
        return gain
    shown = ", ".join(others[:2]) + (f" and {len(others) - 2} more" if len(others) > 2 else "")
    return f"{gain}; or {shown}"


def number(value: float | None, digits: int = 2) -> str:
    """A number of a cell; empty where it was not measured."""
    return "" if value is None else f"{value:,.{digits}f}"


FILTERS = {
    "title": title,
    "difference": difference_text,
    "starred": starred,
    "rate": rate_text,
    "winner": cell_text,
    "number": number,
}


def write_report(content: Mapping[str, Any], out: Path) -> str:
    """Write the three files into the folder; returns the Markdown."""
    write_json(out / "board.json", content)
    markdown = render_template(TEMPLATES / "board.md.jinja", FILTERS, board=content)
    write_text_atomic(out / "board.md", markdown)
    page = render_template(
        TEMPLATES / "board.html.jinja", FILTERS, board=content, figures=figures(content)
    )
    write_text_atomic(out / "board.html", page)
    return markdown


def figures(content: Mapping[str, Any]) -> dict[str, str]:
    """Name of a curve to its drawing, as an `<svg>` element."""
    drawings: dict[str, str] = {}
    for name, (x_label, heading) in CURVES.items():
        lines = content["curves"][name]
        curves = {
            label: ([one["x"] for one in line], [one["estimate"] for one in line])
            for label, line in lines.items()
        }
        if not any(len(points) > 1 for points, _ in curves.values()):
            continue  # single points are in the tables
        figure = curve_panels(
            {"gain over the base, deviations": curves}, x_label=x_label, title=heading
        )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
        drawings[name] = (
            buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]
        )
    return drawings
