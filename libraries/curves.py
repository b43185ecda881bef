"""Gains of every expert over its strength and over its KL, for one or several libraries.

    python -m libraries.curves closed-form=out/a,out/b trained=out/c --out reports/NAME

Reads the `experts.json` of `python -m libraries.evaluate LIBRARY --curve 0.5,1,2` (several folders
of one library are put together), and writes a table, its numbers and a plot.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from libraries.evaluate import JUDGES
from palate.core.files import read_json, write_json, write_text_atomic
from research.board.forms import FORMS

Points = dict[str, dict[float, dict[str, Any]]]  # by objective and strength: measures


def main() -> None:
    """Write the report's table, numbers and plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("curves", nargs="+", metavar="NAME=FOLDER[,FOLDER]")
    parser.add_argument("--out", type=Path, required=True, help="without an ending")
    parser.add_argument("--chosen", type=float, default=1.0, help="strength that is served")
    options = parser.parse_args()
    curves = {}
    for curve in options.curves:
        name, _, folders = curve.partition("=")
        curves[name] = points_of([Path(folder) for folder in folders.split(",")])
    write_text_atomic(options.out.with_suffix(".md"), as_markdown(curves, chosen=options.chosen))
    write_json(options.out.with_suffix(".json"), curves)
    draw(curves, options.out.with_suffix(".png"), chosen=options.chosen)


def points_of(folders: list[Path]) -> Points:
    """Every expert's measures at every strength of the folders."""
    points: Points = {name: {} for name in FORMS}
    for folder in folders:
        for policy, measures in read_json(folder / "experts.json")["policies"].items():
            name, _, strength = policy.partition(" at ")
            if strength:
                points[name][float(strength)] = measures
    return {name: dict(sorted(own.items())) for name, own in points.items()}


def as_markdown(curves: dict[str, Points], *, chosen: float) -> str:
    """One row for each expert and strength."""
    head = ("expert", "library", "strength", "KL", *JUDGES, "relevance", "log perplexity", "words")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for objective in FORMS:
        for library, points in curves.items():
            for strength, measures in points[objective].items():
                mark = " (served)" if strength == chosen and library == next(iter(curves)) else ""
                cells = [_cell(measures, f"{judge} {objective}") for judge in JUDGES]
                guards = [_cell(measures, guard) for guard in ("relevance", "log perplexity")]
                plain = [f"{measures[key]['mean']:.{n}f}" for key, n in (("KL", 1), ("words", 0))]
                row = [objective, library, f"{strength:g}{mark}", plain[0], *cells, *guards]
                lines.append(f"| {' | '.join([*row, plain[1]])} |")
    return "\n".join(lines) + "\n"


def _cell(measures: dict[str, Any], key: str) -> str:
    if key not in measures:
        return ""
    own = measures[key]
    return f"{own['difference']:+.3f} [{own['low']:+.3f}, {own['high']:+.3f}]"


def draw(curves: dict[str, Points], path: Path, *, chosen: float) -> None:
    """Gain by form over KL, a panel for each objective; the served strength is a filled point."""
    figure, panels = plt.subplots(2, 3, figsize=(11, 6), layout="constrained")
    for panel, objective in zip(panels.flat, FORMS, strict=True):
        for place, (library, points) in enumerate(curves.items()):
            own = points[objective]
            for kind, style in zip(JUDGES, ("-o", "--s"), strict=True):
                key = f"{kind} {objective}"
                rows = [(m["KL"]["mean"], m[key]) for m in own.values() if key in m]
                if not rows:
                    continue
                centre = [cell["difference"] for _, cell in rows]
                below = [cell["difference"] - cell["low"] for _, cell in rows]
                above = [cell["high"] - cell["difference"] for _, cell in rows]
                panel.errorbar(
                    [kl for kl, _ in rows],
                    centre,
                    yerr=[below, above],
                    fmt=style,
                    color=f"C{place}",
                    markerfacecolor="white",
                    capsize=2,
                    linewidth=1,
                    label=f"{library}, {kind}",
                )
                if place == 0 and chosen in own:
                    kl, cell = own[chosen]["KL"]["mean"], own[chosen][key]
                    panel.plot(kl, cell["difference"], style[-1], color=f"C{place}", zorder=5)
        panel.axhline(0, color="grey", linewidth=0.5)
        panel.set(title=objective, xlabel="KL to the base, nats an answer", ylabel="gain")
    lines, names = panels.flat[0].get_legend_handles_labels()
    figure.legend(lines, names, fontsize="small", loc="outside lower center", ncols=len(curves))
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
