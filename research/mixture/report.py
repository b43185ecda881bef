"""The mixture's win-rate study as a page with plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palate.core.files import write_json, write_text_atomic
from palate.metrics.intervals import Interval
from research.figures import curve_panels, interval_rows, save_png
from research.mixture.ablations import Ablations
from research.mixture.rivals import BESIDE, RIVALS
from research.mixture.win_rates import TARGET, MixtureStudy
from research.world.objectives import OBJECTIVE_NAMES

NAME = "mixture-world"


def write_study(study: MixtureStudy, ablations: Ablations | None, folder: Path) -> None:
    """Write `mixture-world.md`, `.json` and the plots into the folder."""
    write_json(folder / f"{NAME}.json", study_json(study, ablations))
    rows = {
        f"against {name}": _ends(rates.ties_out)
        for name in (*RIVALS, *BESIDE)
        if (rates := study.methods[name].rates) is not None and rates.ties_out is not None
    }
    figure = interval_rows(
        {"average of the first seven": _ends(study.average.ties_out), **rows},
        x_label="share of decided comparisons that the controller wins",
        title="The trained controller against its rivals, held-out prompts, gold judge",
        line=0.5,
    )
    save_png(figure, folder / f"{NAME}-wins.png")
    if ablations is not None:
        save_png(_curves(ablations), folder / f"{NAME}-curves.png")
    write_text_atomic(folder / f"{NAME}.md", render_study(study, ablations))


def study_json(study: MixtureStudy, ablations: Ablations | None) -> dict[str, Any]:
    """Everything as plain data."""
    return {**study.to_json(), **({"ablations": ablations.to_json()} if ablations else {})}


def render_study(study: MixtureStudy, ablations: Ablations | None) -> str:
    """The page."""
    settings = study.settings
    seeds = ",".join(map(str, settings.seeds))
    n = settings.n_prompts * 8 * len(settings.seeds)
    average = study.average
    lines = [
        "# The controller in the small world",
        "",
        f"`python -m research.mixture.study --seeds {seeds} --prompts {settings.n_prompts}"
        f"{' --ablations' if ablations else ''}`: libraries of {len(settings.seeds)} seeds, "
        f"{settings.n_prompts} held-out prompts, 8 users, one answer each at temperature 1: {n} "
        "comparisons with each rival. Gold rules judge; rewards were learned from simulated "
        "annotators. Brackets: 95 % intervals over prompts and users, crossed.",
        "",
        f"**Average win rate of the controller over {len(RIVALS)} rivals: "
        f"{_percent(average.ties_out)}** of decided comparisons (aimed at: {TARGET:.0%}); "
        f"{_percent(average.ties_half)} with ties as half.",
        "",
        "A comparison: on each of the user's three objectives +1, 0 or -1 by gold reward, both "
        "orders judged (the rules are blind to order, so they always agree), the sum decides.",
        "",
        "| controller against | wins | ties | losses | of decided | ties as half | ties not won | "
        "by seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in (*RIVALS, *BESIDE):
        method = study.methods[name]
        if method.rates is None or method.rates.ties_out is None:
            continue
        rates = method.rates
        seeds_text = ", ".join(f"{100 * value:.1f}" for value in method.by_seed)
        lines.append(
            f"| {name} | {rates.n_wins} | {rates.n_ties} | {rates.n_losses} | "
            f"{_percent(method.rates.ties_out)} | {_percent(rates.ties_half)} | "
            f"{_percent(rates.ties_lost)} | {seeds_text} |"
        )
    lines += [
        "",
        f"![Win rates]({NAME}-wins.png)",
        "",
        "The first seven are the rivals of the headline; they read the same preference sentences. "
        "`uniform-plain` has rows of one expert each; the last three read no sentences.",
        "",
        "| method | gold reward of what is wanted | well-formed | average win rate, round robin of "
        f"eight | {' | '.join(OBJECTIVE_NAMES)} |",
        f"|---|---|---|---|{'---|' * len(OBJECTIVE_NAMES)}",
    ]
    for name, method in study.methods.items():
        robin = study.round_robin.get(name)
        cells = " | ".join(f"{study.per_objective[name][o]:.3f}" for o in OBJECTIVE_NAMES)
        lines.append(
            f"| {name} | {_text(method.wanted)} | {method.well_formed:.3f} | "
            f"{'' if robin is None else f'{100 * robin:.1f}'} | {cells} |"
        )
    lines += [
        "",
        "Controller minus best constant shares, gold reward of what is wanted, by user: "
        + "; ".join(f"{name} {_text(one)}" for name, one in study.by_user.items())
        + ".",
        "",
        " ".join(study.failures) or "All targets are met.",
        "",
    ]
    return "\n".join(lines + (_ablation_lines(ablations) if ablations else []))


def _ablation_lines(result: Ablations) -> list[str]:
    lines = [
        "## Ablations",
        "",
        f"Seed {result.seed} alone, {result.n_comparisons} answers each to the same held-out "
        "prompts; differences are paired with the row `rebel`, intervals over prompts and users.",
        "",
        "| variant | gold reward of what is wanted | minus rebel | wins against rebel, of decided "
        "| reward of the last updates | entropy, nats | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result.rows.items():
        wins = "" if row.wins is None else _percent(row.wins)
        gap = "" if row.difference is None else _text(row.difference)
        end = "" if row.reward is None else f"{row.reward:.3f}"
        entropy = "" if row.entropy is None else f"{row.entropy:.3f}"
        n_parameters = "" if row.n_parameters is None else f"{row.n_parameters:,}"
        lines.append(
            f"| {name} | {_text(row.wanted)} | {gap} | {wins} | {end} | {entropy} | "
            f"{n_parameters} |"
        )
    lines += ["", f"![Training curves]({NAME}-curves.png)", ""]
    if result.held_out_gain is not None and result.trained_gain is not None:
        is_significant = result.trained_gain.low > 0
        share = (
            f"{result.held_out_share:.0%}"
            if is_significant
            else "no share: not significantly different from zero"
        )
        lines += [
            "Two of the eight combinations held out of training: on these two the controller gains "
            f"{_text(result.held_out_gain)} of gold reward over the uniform mixture; the "
            f"controller trained on all eight gains {_text(result.trained_gain)} there "
            f"({share}; aimed at: 70 %).",
            "",
        ]
    return lines


def _curves(result: Ablations) -> Any:
    def of(key: str) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
        return {
            name: (
                [row["update"] for row in result.curves[name]],
                [row[key] for row in result.curves[name]],
            )
            for name in ("rebel", "ppo")
            if name in result.curves
        }

    return curve_panels(
        {
            "reward (mean win probability)": of("reward"),
            "entropy of the shares, nats": of("mean_entropy"),
            "KL to the uniform mixture, nats": of("kl_to_uniform"),
        },
        x_label="update",
        title="Training at equal samples",
    )


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _text(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _percent(interval: Interval) -> str:
    estimate, low, high = (100 * value for value in _ends(interval))
    return f"{estimate:.1f} % [{low:.1f}, {high:.1f}]"
