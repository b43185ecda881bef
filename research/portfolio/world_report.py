"""The portfolio study of the small world as a document and a plot."""

from collections.abc import Callable
from pathlib import Path

from palate.core.files import write_json, write_text_atomic
from research.figures import gap_curves, save_png
from research.portfolio.world_losses import METHODS, Estimate, GapRow, WorldStudy, study_json
from research.portfolio.world_policies import OBJECTIVES

LOSS = "largest loss of anybody, reward units"
NAME = "portfolio-world"  # and the objectives, where they are not the default ones


def write_world_study(study: WorldStudy, folder: Path) -> None:
    """Write `portfolio-world.md`, `.json` and `.png` into the folder."""
    title = "Learned experts: loss against the best policy trained, judged by the gold rules"
    write_study(study, folder / _name(study), title=title, text=render_world_study(study))


def write_study(study: WorldStudy, out: Path, *, title: str, text: str) -> None:
    """Write the text, the numbers and the plot, at `out` with three endings."""
    sizes = list(range(1, study.settings.max_size + 1))
    curves = {
        method: [_interval(study.row(method, size).additive) for size in sizes]
        for method in METHODS
    }
    figure = gap_curves(curves, sizes=sizes, y_label=LOSS, title=title)
    save_png(figure, out.with_suffix(".png"))
    write_json(out.with_suffix(".json"), study_json(study))
    write_text_atomic(out.with_suffix(".md"), text)


def _name(study: WorldStudy) -> str:
    objectives = study.settings.objectives
    return NAME if objectives == OBJECTIVES else f"{NAME}-{'-'.join(objectives)}"


def render_world_study(study: WorldStudy) -> str:
    """The findings as Markdown."""
    settings = study.settings
    lines = [
        "# Portfolios of learned experts on the small world",
        "",
        "Made by `python -m research.portfolio.world_study "
        f"--seeds {','.join(map(str, settings.seeds))} "
        f"--size {settings.max_size} --calls {settings.max_calls} "
        f"--objectives {','.join(settings.objectives)}`. One library a seed. Policies trained: "
        f"{', '.join(map(str, study.n_policies))}; by adaptive search "
        f"{', '.join(map(str, study.n_calls))}.",
        "",
        f"Members are chosen by the library's rewards on {settings.n_prompts} prompts; losses are "
        f"judged by the gold rules on {study.n_prompts} held-out prompts, {settings.n_answers} "
        "answers of every policy to each, the same seeds for all. A loss is the difference in "
        "`J = w @ R - beta KL` (beta 0.1) to **the best of the policies trained for the seed**, "
        "so it is relative to those, and the largest over all preferences. Intervals: 95 %, whole "
        f"prompts resampled {settings.n_resamples} times; numbers are means over seeds.",
        "",
        f"![Largest loss of anybody against the number of members]({_name(study)}.png)",
        "",
    ]
    return "\n".join(lines) + "\n" + study_tables(study)


def study_tables(study: WorldStudy) -> str:
    """Every table of the findings as Markdown."""
    sizes = range(1, study.settings.max_size + 1)
    lines = [
        "## Largest loss of anybody, reward units",
        "",
        "A maximum, which resampling raises: estimates lie at the lower ends of their intervals.",
        "",
        _table(study, sizes, lambda row: _text(row.additive)),
        "## Largest share lost of the best value",
        "",
        _table(study, sizes, lambda row: _text(row.multiplicative)),
        "## Largest loss when users are routed by the library's rewards",
        "",
        _table(study, sizes, lambda row: _text(row.routed)),
        "## Mean loss over all preferences",
        "",
        _table(study, sizes, lambda row: _text(row.mean)),
        "## Paired differences in the largest loss",
        "",
        "Below zero: better than the other way with as many members.",
        "",
        "| members | PALM minus uniform | PALM minus random | adaptive minus uniform "
        "| adaptive minus random |",
        "|---|---|---|---|---|",
        *(
            f"| {size} | {_text(study.row('PALM', size).less_than_uniform)} "
            f"| {_text(study.row('PALM', size).less_than_random)} "
            f"| {_text(study.row('adaptive', size).less_than_uniform)} "
            f"| {_text(study.row('adaptive', size).less_than_random)} |"
            for size in sizes
        ),
        "",
        "## How many members are in use",
        "",
        "exp(entropy of usage), preferences drawn evenly, routed by the judge.",
        "",
        _table(study, sizes, lambda row: f"{row.perplexity:.2f}"),
        f"## How different members' answers are ({study.diversity[0].size} members)",
        "",
        "Over the first answers of all members to one prompt, mean over prompts and seeds; regret "
        "between members is what the user a member was made for loses with another one.",
        "",
        "| way | distinct-2 | self-BLEU | mean regret between members |",
        "|---|---|---|---|",
        *(
            f"| {row.method} | {row.distinct_2:.3f} | {row.self_bleu:.3f} "
            f"| {row.mean_regret_between:.3f} |"
            for row in study.diversity
        ),
        "",
        "## Policies beaten at their own preference",
        "",
        "By more than two standard errors, by the library's rewards: what was made for it falls "
        "short.",
        "",
        *(
            f"- seed {seed}: {len(names)} of {n}" + (f" ({', '.join(names)})" if names else "")
            for seed, names, n in zip(
                study.settings.seeds, study.oracle_failures, study.n_policies, strict=True
            )
        ),
    ]
    return "\n".join(lines) + "\n"


def _table(study: WorldStudy, sizes: range, cell: Callable[[GapRow], str]) -> str:
    head = ["| members | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    rows = [
        f"| {size} | " + " | ".join(cell(study.row(method, size)) for method in METHODS) + " |"
        for size in sizes
    ]
    return "\n".join([*head, *rows]) + "\n"


def _text(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _interval(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high
