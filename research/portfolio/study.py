"""Every method of finding members, on problems whose answer is known.

Four tables: what portfolios of a size lose, by the method that found their members and the policies
it cost; what re-centring gains; how many policies PALM's grid and the adaptive search make for the
same certified gap; and in how many simulated experiments a certificate from sampled values holds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from palate.core.errors import NotConvergedError
from palate.core.files import dump_json
from palate.core.seeds import generator_for
from palate.core.settings import Settings
from palate.core.simplex import lattice
from palate.portfolio.adaptive import SearchSettings, proposal
from palate.portfolio.certificate import certify
from palate.portfolio.everybody import Stakes, best_members
from palate.portfolio.grid import ratio_grid_size
from palate.portfolio.palm import PalmSettings, palm
from palate.portfolio.payoffs import payoffs_from_measurements
from palate.portfolio.terms import Terms
from research.command_line import IsJson, run
from research.portfolio.exact import search
from research.portfolio.recentre import recentred
from research.portfolio.study_methods import TEST_DENOMINATORS, MethodRow, method_rows
from research.portfolio.tabular import TabularOracle, measured, yardstick
from research.portfolio.tradeoff import users_losses

KINDS = ((2, 0.02, 5), (2, 0.1, 5), (3, 0.02, 7), (3, 0.1, 7))  # objectives, beta, members
EQUAL_GAP_GRIDS = {  # tolerances of PALM's grid whose certified gap the adaptive search must reach
    2: ((0.8, 0.4), (0.5, 0.2), (0.3, 0.1), (0.1, 0.05)),
    3: ((0.8, 0.5), (0.5, 0.25), (0.5, 0.1), (0.25, 0.1)),
}


class StudySettings(Settings):
    """Which problems; the defaults are the yardstick."""

    n_seeds: int = 5
    first_seed: int = 0
    n_worlds: int = 200
    n_prompts: int = 500
    confidence: float = 0.9


@dataclass(frozen=True)
class RecentringRow:
    """Largest amount lost before and after sweeps, with the policies they cost."""

    beta: float
    n_sweeps: int
    before: float
    after: float
    n_more_calls: float


@dataclass(frozen=True)
class EqualGapRow:
    """Policies that the grid and the adaptive search make for the same certified gap.

    Attributes:
        promised: The gap that the grid's own theorem gives before anything is made.
        certified: The gap that the certificate gives for all of the grid's policies.
    """

    n_objectives: int
    beta: float
    epsilon: float
    delta: float
    promised: float
    certified: float
    n_grid: int
    n_for_promise: int
    n_adaptive_mean: float
    n_adaptive_most: int


@dataclass(frozen=True)
class CoverageRow:
    """In how many simulated experiments the certificate held."""

    n_objectives: int
    confidence: float
    n_worlds: int
    n_held: int
    true_gap: float
    mean_certified: float


@dataclass(frozen=True)
class Study:
    """The four tables."""

    first_seed: int
    n_seeds: int
    methods: tuple[MethodRow, ...]
    recentring: tuple[RecentringRow, ...]
    equal_gap: tuple[EqualGapRow, ...]
    coverage: tuple[CoverageRow, ...]

    def markdown(self) -> str:
        """The tables as a document."""
        methods = _table(
            "objectives|beta|members|way|policies made|multiplicative|additive|mean|certified",
            (
                f"{r.n_objectives}|{r.beta:g}|{r.size}|{r.method}|{r.n_calls:g}|{r.multiplicative:.4f}"
                f"|{r.additive:.4f}|{r.mean:.4f}|"
                + ("" if r.certified is None else f"{r.certified:.4f}")
                for r in self.methods
            ),
        )
        recentring = _table(
            "beta|sweeps|additive before|additive after|change|further policies",
            (
                f"{r.beta:g}|{r.n_sweeps}|{r.before:.4f}|{r.after:.4f}"
                f"|{r.after / r.before - 1:+.0%}|{r.n_more_calls:g}"
                for r in self.recentring
            ),
        )
        equal = _table(
            "objectives|beta|epsilon|delta|grid|promised gap|adaptive for it|certified gap"
            "|adaptive for it, mean|most|grid / most",
            (
                f"{r.n_objectives}|{r.beta:g}|{r.epsilon:g}|{r.delta:g}|{r.n_grid}|{r.promised:.4f}"
                f"|{r.n_for_promise}|{r.certified:.4f}|{r.n_adaptive_mean:.1f}|{r.n_adaptive_most}"
                f"|{r.n_grid / r.n_adaptive_most:.1f}x"
                for r in self.equal_gap
            ),
        )
        coverage = _table(
            "objectives|confidence|worlds|held|true gap|mean certified gap",
            (
                f"{r.n_objectives}|{r.confidence:g}|{r.n_worlds}|{r.n_held}|{r.true_gap:.4f}"
                f"|{r.mean_certified:.4f}"
                for r in self.coverage
            ),
        )
        return (
            "# Portfolios on problems with known answers\n\n"
            "Losses against the exact best value; means over problems, seeds "
            f"{self.first_seed} to {self.first_seed + self.n_seeds - 1}. Made by `palate portfolio "
            f"study --seeds {self.n_seeds} --first-seed {self.first_seed}`.\n\n"
            f"## What a portfolio loses, by the way it was found\n\n{methods}\n"
            f"## Re-centring after adaptive search and pruning (2 objectives, 5 members)\n\n"
            f"{recentring}\n## Policies made for the same certified gap\n\n{equal}\n"
            f"## Certificates from sampled values\n\n{coverage}"
        )


def study_portfolios(settings: StudySettings) -> Study:
    """Measure the four tables; about two minutes on one core."""
    seeds = range(settings.first_seed, settings.first_seed + settings.n_seeds)
    return Study(
        first_seed=settings.first_seed,
        n_seeds=settings.n_seeds,
        methods=tuple(row for kind in KINDS for row in method_rows(*kind, seeds=seeds)),
        recentring=tuple(
            recentring_row(beta, n_sweeps=n, seeds=seeds) for beta in (0.02, 0.1) for n in (2, 4)
        ),
        equal_gap=tuple(
            equal_gap_row(d, beta, tolerances=tolerances, seeds=seeds)
            for d, beta in ((2, 0.02), (2, 0.1), (3, 0.02), (3, 0.1))
            for tolerances in EQUAL_GAP_GRIDS[d]
        ),
        coverage=tuple(coverage_row(d, settings=settings) for d in (2, 3, 4)),
    )


def recentring_row(beta: float, *, n_sweeps: int, seeds: Sequence[int]) -> RecentringRow:
    """Sweeps after ten adaptive policies pruned to five, two objectives."""
    users = lattice(n_objectives=2, denominator=TEST_DENOMINATORS[2])
    before: list[float] = []
    after: list[float] = []
    calls: list[int] = []
    for seed in seeds:
        problem = yardstick(seed=seed, n_objectives=2, beta=beta)
        oracle = TabularOracle(problem)
        table = search(oracle, SearchSettings(tolerance=0.0, max_calls=10)).payoffs.table
        start = best_members(Stakes(values=table.values, rows=table.values), size=5)
        found = recentred(oracle, policies=table.policies, members=start.members, n_sweeps=n_sweeps)
        best = problem.best_values(users)
        for values, lost in (
            (table.values[list(start.members)], before),
            (found.payoffs.table.values[list(found.members)], after),
        ):
            lost.append(users_losses(values, users=users, best_values=best).additive)
        calls.append(found.payoffs.n_policies - 10)
    means = (float(np.mean(numbers)) for numbers in (before, after, calls))
    return RecentringRow(beta, n_sweeps, *means)


def equal_gap_row(
    n_objectives: int, beta: float, *, tolerances: tuple[float, float], seeds: Sequence[int]
) -> EqualGapRow:
    """Adaptive search until it certifies, with all its policies, what the whole grid certifies.

    And until it certifies what the grid's theorem promises: `(epsilon J* + delta) / (1 + epsilon)`,
    for the largest `J*`, which is that of some objective alone (palm.md P5).
    """
    epsilon, delta = tolerances
    promises: list[float] = []
    gaps: list[float] = []
    calls: list[int] = []
    calls_for_promise: list[int] = []
    for seed in seeds:
        oracle = TabularOracle(yardstick(seed=seed, n_objectives=n_objectives, beta=beta))
        rules = PalmSettings(epsilon=epsilon, delta=delta, max_calls=1000)
        made = palm(oracle, rules)
        gap = proposal(made.payoffs, SearchSettings(tolerance=0.0)).gap
        best = float(np.max(oracle.problem.best_values(np.eye(n_objectives))))
        promises.append((epsilon * best + delta) / (1.0 + epsilon))
        gaps.append(gap)
        calls.append(_calls_until(oracle, gap=gap, limit=2 * made.n_calls))
        calls_for_promise.append(_calls_until(oracle, gap=promises[-1], limit=made.n_calls))
    return EqualGapRow(
        n_objectives=n_objectives,
        beta=beta,
        epsilon=epsilon,
        delta=delta,
        promised=float(np.mean(promises)),
        certified=float(np.mean(gaps)),
        n_grid=ratio_grid_size(n_objectives=n_objectives, epsilon=epsilon, delta=delta),
        n_for_promise=max(calls_for_promise),
        n_adaptive_mean=float(np.mean(calls)),
        n_adaptive_most=max(calls),
    )


def _calls_until(oracle: TabularOracle, *, gap: float, limit: int) -> int:
    """Policies that the adaptive search makes until it certifies the gap.

    Raises:
        NotConvergedError: more than `limit`.
    """
    state = search(oracle, SearchSettings(tolerance=gap, max_calls=limit))
    if state.gap > gap:
        raise NotConvergedError(f"{limit} adaptive policies do not certify {gap:.6g}.")
    return state.payoffs.n_policies


def coverage_row(n_objectives: int, *, settings: StudySettings) -> CoverageRow:
    """Worst-case certificates of every second policy of an adaptive search, from sampled values."""
    problem = yardstick(seed=settings.first_seed, n_objectives=n_objectives, beta=0.1)
    oracle = TabularOracle(problem)
    rules = SearchSettings(tolerance=0.0, max_calls=n_objectives + 5)
    table = search(oracle, rules).payoffs.table
    members = list(range(0, len(table.policies), 2))
    generator = generator_for(settings.first_seed, "coverage", n_objectives)
    users = generator.dirichlet(np.ones(n_objectives), size=2000)
    truth = users_losses(
        table.values[members], users=users, best_values=problem.best_values(users)
    ).additive
    terms = Terms(confidence=settings.confidence, criterion="additive", slack=0.0)
    certified: list[float] = []
    for _ in range(settings.n_worlds):
        seen = measured(oracle, table.policies, n_prompts=settings.n_prompts, generator=generator)
        found = certify(payoffs_from_measurements(seen), members=members, terms=terms)
        gap = found.certificate.additive_gap
        certified.append(np.nan if gap is None else gap)  # worst-case, so there always is one
    return CoverageRow(
        n_objectives=n_objectives,
        confidence=settings.confidence,
        n_worlds=settings.n_worlds,
        n_held=int(np.sum(np.array(certified) >= truth)),
        true_gap=truth,
        mean_certified=float(np.mean(certified)),
    )


def _table(head: str, rows: Iterator[str]) -> str:
    names = head.split("|")
    lines = [" | ".join(names), "|".join("---" for _ in names)]
    lines += [" | ".join(row.split("|")) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def main(
    *,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    n_seeds: Annotated[int, typer.Option("--seeds", help="Problems of each kind.")] = 5,
    first_seed: Annotated[int, typer.Option(help="Of the yardstick problems.")] = 0,
    is_json: IsJson = False,
) -> None:
    """Measure every method of finding members on problems whose answer is known exactly."""
    found = study_portfolios(StudySettings(n_seeds=n_seeds, first_seed=first_seed))
    if out is not None:
        out.write_text(found.markdown(), encoding="utf-8")
    typer.echo(dump_json(asdict(found)) if is_json else found.markdown())


if __name__ == "__main__":
    run(main)
