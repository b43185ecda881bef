"""palate's adaptive search beside optimistic linear support, on the problems that `peer.py` ran.

    python -m benchmarks.linear_support.compare peer.json

Three questions: with the corner rule alone, does palate ask for the same preferences? How many
policies does each make until it believes that nobody loses more than the tolerance? And what do
users really lose then?
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from palate.core.simplex import lattice
from palate.portfolio.adaptive import SearchSettings
from research.portfolio.exact import search
from research.portfolio.tabular import TabularOracle, TabularProblem, yardstick


def true_gap(problem: TabularProblem, values: np.ndarray) -> float:
    users = lattice(n_objectives=values.shape[1], denominator={2: 400, 3: 60}[values.shape[1]])
    return float(np.max(problem.best_values(users) - (users @ values.T).max(axis=1)))


def main() -> None:
    """One line a problem, as a Markdown table."""
    print(
        "| objectives | beta | seed | policies: peer | palate | true gap: peer | palate"
        " | same front at equal calls, largest difference | seconds: peer | palate |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for row in json.loads(Path(sys.argv[1]).read_text()):
        problem = yardstick(seed=row["seed"], n_objectives=row["objectives"], beta=row["beta"])
        oracle = TabularOracle(problem)
        rules = SearchSettings(tolerance=row["tolerance"], max_calls=100)
        search(oracle, rules)  # the oracle's work is not timed for either
        start = time.perf_counter()
        result = search(oracle, rules).payoffs.table.values
        seconds = time.perf_counter() - start
        n_asked = len(row["asked"])
        corner = search(oracle, SearchSettings(tolerance=0.0, max_calls=n_asked)).payoffs.table
        asked = np.array(row["asked"])
        apart = np.abs(asked[:, None] - corner.preferences[None]).sum(axis=2).min(axis=1).max()
        print(
            f"| {row['objectives']} | {row['beta']} | {row['seed']} | {n_asked} | {len(result)}"
            f" | {true_gap(problem, np.array(row['values'])):.4f} | {true_gap(problem, result):.4f}"
            f" | {apart:.1e} | {row['seconds']:.2f} | {seconds:.2f} |"
            + (f" {row['failure']}" if row["failure"] else "")
        )


if __name__ == "__main__":
    main()
