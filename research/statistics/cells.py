"""What the intervals and tests of this package do where truth is known.

Each cell draws many comparisons of one shape and counts how often the 95 % interval holds the truth
and how often a comparison without a difference is called significant. Repeats have seeds of their
own, so a cell comes out the same alone, in any order and on any number of processes.

Source: Wilson 1927 for the intervals of the shares that are counted.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import expit
from scipy.stats import ttest_ind

from palate.core.errors import InvalidInputError
from palate.core.progress import progress_of
from palate.core.seeds import generator_for
from palate.metrics.differences import holm, paired_difference
from palate.metrics.intervals import rate_interval, wilson_interval
from palate.metrics.win_rates import length_controlled_rate
from research.statistics.draws import (
    Outcome,
    Shape,
    design_of,
    differences_of,
    verdicts_of,
)
from research.statistics.sequential import hedged_log_capital, predictable_bets

Clustering = Literal["user", "prompt", "both"]
What = Literal[
    "one kind", "two kinds", "clusterings", "rate", "length", "table", "sequence", "planted"
]
LEVEL = 0.05
LEAN = 0.5  # standard deviation of a user or a prompt in the cells with an effect
N_CLUSTERS = (4, 8, 16, 24, 40)
RATES = (0.6, 0.85, 0.96)
LEANINGS = ((0.0, 0.0), (LEAN, 0.0), (0.0, LEAN), (LEAN, LEAN))
N_WAYS = 27  # against the base, as in the small world's report
N_LOOKS = 1000
QUALITY = 0.5  # log odds at equal length
POINTS = 0.02  # the planted difference


@dataclass(frozen=True)
class Cell:
    """One thing that is checked many times.

    Attributes:
        what: Which statistic, and so which table.
        shape: Of what is drawn.
        clustering: That the statistic is told of.
        detail: Rate, or kind of values, where the statistic has several.
    """

    what: What
    shape: Shape
    clustering: Clustering = "both"
    detail: float | str = ""


@dataclass(frozen=True)
class Count:
    """What came of a cell.

    Attributes:
        cell: What was checked.
        n_repeats: How often.
        n_covered: How often the interval held the truth, or `None`.
        n_significant: How often a difference was claimed, or `None`.
        n_unpaired: For the planted difference: how often without pairing.
    """

    cell: Cell
    n_repeats: int
    n_covered: int | None = None
    n_significant: int | None = None
    n_unpaired: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; shares with their 95 % intervals."""
        counts = {
            "covered": self.n_covered,
            "significant": self.n_significant,
            "unpaired_significant": self.n_unpaired,
        }
        return {
            "what": self.cell.what,
            "detail": self.cell.detail,
            "clustering": self.cell.clustering,
            **self.cell.shape.to_json(),
            "n_repeats": self.n_repeats,
            **{
                name: share_of(count, self.n_repeats)
                for name, count in counts.items()
                if count is not None
            },
        }


def share_of(count: int, n: int) -> dict[str, float]:
    """A counted share with its standard error and its 95 % interval."""
    low, high = wilson_interval(count, n)
    share = count / n
    return {
        "share": share,
        "standard_error": float(np.sqrt(share * (1 - share) / n)),
        "low": low,
        "high": high,
    }


def all_cells() -> list[Cell]:
    """Every shape of the tables."""
    outcomes: tuple[Outcome, ...] = get_args(Outcome)
    is_equal = (True, False)
    found = [
        Cell("one kind", Shape(n, 0, 12, equal, outcome, lean), "user")
        for n, equal, outcome, lean in product(N_CLUSTERS, is_equal, outcomes, (0.0, LEAN))
    ]
    found += [
        Cell("two kinds", Shape(n, 16, 1, equal, outcome, *leans), "both")
        for n, equal, outcome, leans in product(N_CLUSTERS, is_equal, outcomes, LEANINGS)
    ]
    clusterings: tuple[Clustering, ...] = get_args(Clustering)
    reports = [Shape(8, 16, 3, user=a, prompt=b) for a, b in (*LEANINGS, (0.15, 0.15))]
    reports += [Shape(20, 15, 1, user=a, prompt=b) for a, b in LEANINGS]
    found += [Cell("clusterings", s, kinds) for s, kinds in product(reports, clusterings)]
    crossed = [Shape(n, 16, 3, user=a, prompt=b) for n, (a, b) in product((8, 24), LEANINGS)]
    alone = [Shape(n, 0, 12, user=lean) for n, lean in product(N_CLUSTERS, (0.0, LEAN))]
    found += [Cell("rate", s, "both", rate) for rate, s in product(RATES, crossed)]
    found += [Cell("rate", s, "user", rate) for rate, s in product(RATES, alone)]
    found += [Cell("length", s, "both") for s in crossed]
    found += [Cell("table", s, "both") for s in reports[:4]]
    found += [Cell("sequence", Shape(N_LOOKS), "user", kind) for kind in VALUES]
    return [*found, Cell("planted", Shape(300), "user")]


def check_statistics(
    *, n_repeats: int, seed: int = 0, n_workers: int = 1, cells: Sequence[Cell] | None = None
) -> list[Count]:
    """Each cell `n_repeats` times; fewer where one repeat is a whole table or a long sequence.

    Args:
        n_repeats: Of each cell.
        seed: Of everything.
        n_workers: Processes; the outcome is the same with any number.
        cells: By default all of `all_cells`.

    Raises:
        InvalidInputError: no repeats, or no workers.
    """
    if n_repeats < 1 or n_workers < 1:
        raise InvalidInputError(
            f"{n_repeats} repeats on {n_workers} processes check nothing; give at least one each."
        )
    chosen = all_cells() if cells is None else list(cells)
    jobs = [(cell, n_repeats, seed) for cell in chosen]
    found: list[Count] = []
    with progress_of("statistics") as report, ProcessPoolExecutor(n_workers) as pool:
        counted = pool.map(_counted, jobs) if n_workers > 1 else map(_counted, jobs)
        for count in counted:
            found.append(count)
            report(len(found), len(jobs))
    return found


def _counted(job: tuple[Cell, int, int]) -> Count:
    return count_cell(job[0], n_repeats=job[1], seed=job[2])


def count_cell(cell: Cell, *, n_repeats: int, seed: int) -> Count:
    """One cell."""
    counters: dict[What, Callable[[Cell, int, np.random.Generator], Count]] = {
        "one kind": _differences,
        "two kinds": _differences,
        "clusterings": _differences,
        "rate": _rates,
        "length": _lengths,
        "table": _tables,
        "sequence": _sequences,
        "planted": _planted,
    }
    count = counters[cell.what]
    # the clustering and the table are left out: the same shape means the same draws everywhere
    drawn = "difference" if count is _differences else cell.what
    shape = str(cell.shape).replace("n_users=", "n_people=").replace(" user=", " person=")
    generator = generator_for(seed, drawn, shape, str(cell.detail))  # streams keep their labels
    return count(cell, n_repeats, generator)


def _labels(cell: Cell) -> dict[str, Any]:
    design = design_of(cell.shape)
    return {
        "user": {"clusters": design.users},
        "prompt": {"clusters": design.prompts},
        "both": {"clusters": design.users, "second_clusters": design.prompts},
    }[cell.clustering]


def _differences(cell: Cell, n_repeats: int, generator: np.random.Generator) -> Count:
    design, labels = design_of(cell.shape), _labels(cell)
    signs = np.random.default_rng(generator.integers(2**32))
    same = np.zeros(len(design.users))
    n_covered = n_significant = 0
    for _ in range(n_repeats):
        drawn = differences_of(cell.shape, design, generator)
        found = paired_difference(drawn, same, generator=signs, **labels)
        n_covered += found.interval.low <= 0.0 <= found.interval.high
        n_significant += found.is_significant(level=LEVEL)
    return Count(cell, n_repeats, n_covered, n_significant)


def _rates(cell: Cell, n_repeats: int, generator: np.random.Generator) -> Count:
    design, labels, rate = design_of(cell.shape), _labels(cell), float(cell.detail)
    n_covered = 0
    for _ in range(n_repeats):
        found = rate_interval(verdicts_of(cell.shape, design, generator, rate=rate), **labels)
        n_covered += found.low <= rate <= found.high
    return Count(cell, n_repeats, n_covered)


def _lengths(cell: Cell, n_repeats: int, generator: np.random.Generator) -> Count:
    """A quality and a taste for length, in log odds, that users and prompts shift."""
    design, labels, shape = design_of(cell.shape), _labels(cell), cell.shape
    n = len(design.users)
    nodes, shares = np.polynomial.hermite_e.hermegauss(61)
    spread = np.hypot(shape.user, shape.prompt)
    truth = float(shares @ expit(QUALITY + spread * nodes) / shares.sum())
    n_repeats = max(1, n_repeats // 2)
    n_covered = 0
    for _ in range(n_repeats):
        gaps = generator.normal(10.0, 30.0, size=n)
        odds = QUALITY + np.tanh(gaps / np.sqrt(np.mean(gaps**2)))
        odds += shape.user * generator.normal(size=shape.n_users)[design.users]
        odds += shape.prompt * generator.normal(size=shape.n_prompts)[design.prompts]
        wins = (generator.random(n) < expit(odds)).astype(float)
        found = length_controlled_rate(wins, length_differences=gaps, **labels)
        n_covered += found.rate.low <= truth <= found.rate.high
    return Count(cell, n_repeats, n_covered)


def _tables(cell: Cell, n_repeats: int, generator: np.random.Generator) -> Count:
    """Whether any of a table of ways is called different from one base, though none is."""
    design, labels = design_of(cell.shape), _labels(cell)
    n_repeats = max(1, n_repeats // 4)
    n_wrong = 0
    for _ in range(n_repeats):
        base = differences_of(cell.shape, design, generator)
        found = [
            paired_difference(
                differences_of(cell.shape, design, generator), base, generator=generator, **labels
            )
            for _ in range(N_WAYS)
        ]
        adjusted = holm([one.p_value for one in found])
        n_wrong += any(
            p <= LEVEL and one.is_significant() for p, one in zip(adjusted, found, strict=True)
        )
    return Count(cell, n_repeats, n_significant=n_wrong)


def _dependent_steps(draws: np.random.Generator) -> np.ndarray:
    """Up or down with even chances, far after a step up and little after one down."""
    signs = draws.choice([-1.0, 1.0], size=N_LOOKS)
    sizes = np.where(np.append(1.0, signs[:-1]) > 0, 0.5, 0.05)
    return 0.5 + signs * sizes


VALUES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "verdicts": lambda draws: (draws.random(N_LOOKS) < 0.5).astype(float),
    "verdicts with ties": lambda draws: draws.choice([0.0, 0.5, 0.5, 1.0], size=N_LOOKS),
    "means of eight verdicts": lambda draws: draws.binomial(8, 0.5, size=N_LOOKS) / 8,
    "skewed values": lambda draws: draws.choice([0.4, 0.9], p=[0.8, 0.2], size=N_LOOKS),
    "steps that depend on the last": _dependent_steps,
}


def _sequences(cell: Cell, n_repeats: int, generator: np.random.Generator) -> Count:
    """Looked at after every one of many observations, until significant."""
    n_wrong = 0
    for _ in range(n_repeats):
        values = VALUES[str(cell.detail)](generator)
        bets = predictable_bets(values, level=LEVEL)
        capital = hedged_log_capital(values, bets=bets, means=np.array([0.5]))
        n_wrong += bool(capital.max() >= -np.log(LEVEL))
    return Count(cell, n_repeats, n_significant=n_wrong)


def _planted(cell: Cell, n_repeats: int, generator: np.random.Generator) -> Count:
    """Two points between ways that share what makes a prompt easy."""
    n = cell.shape.n_users
    n_repeats = max(1, n_repeats // 10)
    n_paired = n_unpaired = 0
    for _ in range(n_repeats):
        ease = generator.beta(2, 2, size=n)
        first, second = (
            np.clip(ease + gain + generator.normal(0, 0.05, size=n), 0, 1) for gain in (POINTS, 0.0)
        )
        n_paired += paired_difference(first, second, generator=generator).is_significant()
        _, p_value = ttest_ind(first, second, equal_var=False)
        n_unpaired += bool(np.asarray(p_value) <= LEVEL)
    return Count(cell, n_repeats, n_significant=n_paired, n_unpaired=n_unpaired)
