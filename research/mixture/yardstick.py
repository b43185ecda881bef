"""Yardstick C as a report: what a controller can gain on five trees, and what REBEL gains."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from palate.core.errors import CheckFailedError
from palate.core.files import dump_json, write_text_atomic
from palate.core.progress import progress_of
from research.command_line import IsJson, run
from research.mixture.tabular import share_entropy
from research.mixture.tree_controllers import (
    RebelSettings,
    Yardstick,
    fit_table,
    two_halves,
    yardstick,
)
from research.soup.trees import answer_log_probs, soup_policy

N_TREES = 5
CHECKPOINTS = (20, 100, 300)  # updates of REBEL after which its value is listed
EXPECTED = {  # methods' means over the trees, from a second implementation
    "reference": 0.495,
    "uniform": 0.636,
    "single": 0.677,
    "static": 0.681,
    "optimal": 0.753,
    "log_linear": 0.705,
    "log_linear_1.5": 0.752,
}
TOLERANCE = 0.002
HALVES_STATIC, HALVES_OPTIMAL = 0.45, 0.8  # (0.8 + 0.1) / 2, and each expert in its own half
GAIN_AFTER_100 = 0.9  # share of `optimal - uniform` that REBEL must have reached by then


@dataclass(frozen=True)
class YardstickReport:
    """Values per tree and column, and which targets are met.

    Attributes:
        trees: One row per tree: column to expected reward.
        means: The same, averaged.
        gains: REBEL's share of `optimal - uniform` by update, from the means.
        halves: The case in which each expert is right in one half of the answer: values by column.
        failures: One sentence per target that is missed.
    """

    trees: tuple[dict[str, float], ...]
    means: dict[str, float]
    gains: dict[int, float]
    halves: dict[str, float]
    failures: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "trees": list(self.trees),
            "means": self.means,
            "expected_means": EXPECTED,
            "two_halves": self.halves,
            "rebel_gain": {str(update): gain for update, gain in self.gains.items()},
            "failures": list(self.failures),
        }

    def require_met(self) -> None:
        """Return when every target is met.

        Raises:
            CheckFailedError: one is missed; the message says which.
        """
        if self.failures:
            raise CheckFailedError(" ".join(self.failures))

    def to_markdown(self) -> str:
        """The report as a page."""
        columns = list(self.means)
        lines = [
            "# Yardstick C: controllers on five token trees",
            "",
            "Three experts, exactly optimal at KL price 0.08 for one reward each; expected mean "
            "reward of whole answers. Made by `python -m research.mixture.yardstick`.",
            "",
            f"| tree | {' | '.join(columns)} |",
            f"|---|{'---|' * len(columns)}",
        ]
        rows = [(str(seed), row) for seed, row in enumerate(self.trees)]
        for name, row in [*rows, ("mean", self.means)]:
            lines.append(f"| {name} | {' | '.join(f'{row[c]:.4f}' for c in columns)} |")
        listed = [f"{EXPECTED[c]:.3f}" if c in EXPECTED else "" for c in columns]
        lines += [f"| expected | {' | '.join(listed)} |", ""]
        lines += [
            f"REBEL with a table has {gain:.1%} of the gain (optimal - uniform) after {update} "
            "updates."
            for update, gain in self.gains.items()
        ]
        columns = list(self.halves)
        lines += [
            "",
            "## Each expert right in one half",
            "",
            "Answers of four tokens: a is right in the first half, b in the second; one expert "
            "writes a with probability 0.8 everywhere, the other b. Every constant vector of "
            "shares is worth (0.8 + 0.1) / 2; changing hands in the middle is worth 0.8.",
            "",
            f"| {' | '.join(columns)} |",
            f"|{'---|' * len(columns)}",
            f"| {' | '.join(f'{self.halves[c]:.4f}' for c in columns)} |",
        ]
        lines += ["", *(self.failures or ("All targets are met.",))]
        return "\n".join(lines) + "\n"


def run_yardstick(
    *, out: Path | None = None, on_tree: Callable[[int, int], None] = lambda _done, _all: None
) -> YardstickReport:
    """Measure all columns on all trees, and write the page if `out` names one."""
    trees: list[dict[str, float]] = []
    for seed in range(N_TREES):
        trees.append(_columns(yardstick(seed), seed=seed))
        on_tree(seed + 1, N_TREES)
    means = {name: float(np.mean([row[name] for row in trees])) for name in trees[0]}
    whole = means["optimal"] - means["uniform"]
    gains = {u: (means[f"rebel_{u}"] - means["uniform"]) / whole for u in CHECKPOINTS}
    halves = _halves()
    failures = _failures(trees, means, gains) + _halves_failures(halves)
    report = YardstickReport(tuple(trees), means, gains, halves, failures)
    if out is not None:
        write_text_atomic(out, report.to_markdown())
    return report


def _columns(one: Yardstick, *, seed: int) -> dict[str, float]:
    problem = one.problem
    n = problem.n_experts
    values = {
        "reference": float(np.exp(answer_log_probs(one.reference)) @ problem.rewards),
        "uniform": problem.value(problem.constant(np.full(n, 1 / n))),
        "single": max(problem.value(problem.constant(row)) for row in np.eye(n)),
        "static": problem.best_static()[1],
        "optimal": problem.optimal()[1],
        "log_linear": _log_linear(one, strength=1.0),
        "log_linear_1.5": _log_linear(one, strength=1.5),
    }

    def note(update: int, shares: tuple[np.ndarray, ...]) -> None:
        if update in CHECKPOINTS:
            values[f"rebel_{update}"] = problem.value(shares)

    shares = fit_table(problem, seed=seed, on_update=note)
    values["rebel_entropy"] = share_entropy(shares, problem.policy(shares)) / np.log(n)
    return values


def _halves() -> dict[str, float]:
    problem = two_halves()
    values = {
        "uniform": problem.value(problem.constant([0.5, 0.5])),
        "single": max(problem.value(problem.constant(row)) for row in np.eye(2)),
        "static": problem.best_static()[1],
        "optimal": problem.optimal()[1],
    }
    settings = RebelSettings(n_updates=100)
    values["rebel_100"] = problem.value(fit_table(problem, seed=0, settings=settings))
    return values


def _halves_failures(halves: dict[str, float]) -> tuple[str, ...]:
    exact = {"static": HALVES_STATIC, "optimal": HALVES_OPTIMAL}
    wrong = [
        f"With two halves {name} is {halves[name]:.4f}, not {value}."
        for name, value in exact.items()
        if abs(halves[name] - value) > 1e-6
    ]
    least = halves["uniform"] + GAIN_AFTER_100 * (halves["optimal"] - halves["uniform"])
    if halves["rebel_100"] < least:
        wrong.append(f"With two halves REBEL reaches {halves['rebel_100']:.4f}, not {least:.4f}.")
    return tuple(wrong)


def _log_linear(one: Yardstick, *, strength: float) -> float:
    n = one.problem.n_experts
    pooled = soup_policy(one.reference, one.experts, [strength / n] * n)
    return float(np.exp(answer_log_probs(pooled)) @ one.problem.rewards)


def _failures(
    trees: list[dict[str, float]], means: dict[str, float], gains: dict[int, float]
) -> tuple[str, ...]:
    wrong = [
        f"The mean of {name} is {means[name]:.4f}, not {value:.3f} within {TOLERANCE}."
        for name, value in EXPECTED.items()
        if abs(means[name] - value) > TOLERANCE
    ]
    if gains[100] < GAIN_AFTER_100:
        wrong.append(f"REBEL has {gains[100]:.1%} of the gain after 100 updates, not 90 %.")
    wrong += [
        f"REBEL does not beat the best static shares on tree {seed}."
        for seed, row in enumerate(trees)
        if row["rebel_100"] <= row["static"]
    ]
    return tuple(wrong)


def main(
    *,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    is_json: IsJson = False,
) -> None:
    """Controllers on token trees with known answers; fails when a target is missed."""
    with progress_of("trees") as progress:
        report = run_yardstick(out=out, on_tree=progress)
    if is_json:
        typer.echo(dump_json(report.to_json()))
    else:
        table = Table("column", "mean over trees")
        for name, value in report.means.items():
            table.add_row(name, f"{value:.4f}")
        Console().print(table)
    report.require_met()


if __name__ == "__main__":
    run(main)
