"""A portfolio of answer sets for real voters: chosen on some users, judged on others.

A candidate set is the ten statements that one training user is expected to favour most. Users
in the held-out fold are served the best of the K chosen sets for them. Their utility of a set is
the mean vote on its statements: the user's own votes where there are some, and otherwise the vote
expected from all their votes. Chosen sets, peers and expectations come from training users only;
the expectations of held-out users use their own votes, so routing errors are not part of this.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.seeds import generator_for
from palate.metrics.intervals import bootstrap_interval
from research.command_line import DataFolder, IsJson, Seed, Topics, print_result, run
from research.preferences.answer_sets import (
    select_greedy,
    select_medoids,
    select_sets,
    select_single,
    tail_utility,
)
from research.preferences.factors import fit_coefficients, fit_factors
from research.preferences.votes import VoteTable, load_votes

SET_SIZE = 10  # statements of an answer set
MAX_CANDIDATES = 200  # training users whose favourites are candidates
N_FOLDS = 5
MIN_VOTES = 20  # of a user who is counted
METHODS = ("best single", "k-medoids", "greedy", "ours")


def choose_users_portfolio(
    folder: Path, *, size: int, topics: Sequence[str] = (), seed: int = 0
) -> dict[str, Any]:
    """Mean and worst-tenth utility of K answer sets, by topic, against the peers.

    Args:
        folder: Holds `items.jsonl` and `votes.jsonl` (`research.preferences.votes`).
        size: K, how many sets.
        topics: Which topics; all where empty.
        seed: Of folds and of the factorisation.

    Raises:
        InvalidInputError: the files are not of the schema, a topic is unknown, or K is below 1 or
            above the number of candidates.
    """
    if size < 1:
        raise InvalidInputError(f"A portfolio of {size} sets cannot be chosen; ask for 1 or more.")
    tables = load_votes(folder, topics=topics)
    rows = [
        _topic_row(table, size=size, seed=seed)
        for table in tables
        if _n_counted(table) >= 2 * N_FOLDS
    ]
    return {
        "kind": "users-portfolio",
        "size": size,
        "set_size": SET_SIZE,
        "utility": "mean vote on the statements of the best set for a user, held-out users",
        "interval": "95 %, bootstrap of users",
        "seed": seed,
        "topics": rows,
        "notes": []
        if rows
        else [f"no topic has {2 * N_FOLDS} users with {MIN_VOTES} votes or more"],
    }


def _n_counted(table: VoteTable) -> int:
    return int((table.seen.sum(axis=1) >= MIN_VOTES).sum())


def _topic_row(table: VoteTable, *, size: int, seed: int) -> dict[str, Any]:
    votes = table.votes[table.seen.sum(axis=1) >= MIN_VOTES]
    folds = generator_for(seed, table.topic, "portfolio folds").permutation(len(votes)) % N_FOLDS
    served = {name: np.zeros(len(votes)) for name in METHODS}
    for fold in range(N_FOLDS):
        held = np.flatnonzero(folds == fold)
        generator = generator_for(seed, table.topic, "portfolio", fold)
        found = _serve(votes[folds != fold], votes[held], size=size, generator=generator)
        for name, values in found.items():
            served[name][held] = values
    row: dict[str, Any] = {"topic": table.topic, "users": len(votes)}
    for name in METHODS:
        interval = bootstrap_interval(served[name], generator=generator_for(seed, "bootstrap"))
        row[name] = {
            "mean": interval.to_json(),
            "worst_tenth": tail_utility(served[name][:, None], [0]),
        }
        gain = bootstrap_interval(
            served[name] - served["best single"], generator=generator_for(seed, "bootstrap")
        )
        row[name]["mean_over_best_single"] = gain.to_json()
    return row


def _serve(
    training: Float[ndarray, "users items"],
    held: Float[ndarray, "users items"],
    *,
    size: int,
    generator: np.random.Generator,
) -> dict[str, Float[ndarray, " users"]]:
    factors = fit_factors(training, generator=generator)
    coefficients = fit_coefficients(factors, training)[0]
    picked = generator.permutation(len(training))[:MAX_CANDIDATES]
    favourites = np.argsort(-factors.predict(coefficients[picked]), axis=1)[:, :SET_SIZE]
    sets, first = np.unique(np.sort(favourites, axis=1), axis=0, return_index=True)
    if size > len(sets):
        raise InvalidInputError(
            f"{size} sets are asked for, but a topic has {len(sets)} candidates; ask for fewer."
        )
    utilities = _utilities(training, factors.predict(coefficients), sets)
    chosen = {
        "best single": select_single(utilities),
        "k-medoids": select_medoids(coefficients, coefficients[picked][first], size=size),
        "greedy": select_greedy(utilities, size=size),
        "ours": select_sets(utilities, size=size),
    }
    own = _utilities(held, factors.predict(fit_coefficients(factors, held)[0]), sets)
    return {name: own[:, members].max(axis=1) for name, members in chosen.items()}


def _utilities(
    votes: Float[ndarray, "users items"],
    expected: Float[ndarray, "users items"],
    sets: ndarray,
) -> Float[ndarray, "users sets"]:
    filled = np.where(np.isfinite(votes), votes, expected)
    return np.stack([filled[:, items].mean(axis=1) for items in sets], axis=1)


def main(
    data: DataFolder,
    *,
    size: Annotated[int, typer.Option(min=1, help="How many answer sets.")] = 4,
    topic: Topics = None,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Real voters: a few answer sets for everybody, against other ways to choose them."""
    found = choose_users_portfolio(data, size=size, topics=topic or (), seed=seed)
    if not is_json:
        found["topics"] = [
            {"topic": row["topic"], "users": row["users"], **_mean_and_tail(row)}
            for row in found["topics"]
        ]
    print_result(found, is_json=is_json)


def _mean_and_tail(row: dict[str, Any]) -> dict[str, str]:
    """For each method `mean / worst tenth`."""
    return {
        name: f"{row[name]['mean']['estimate']:.3f} / {row[name]['worst_tenth']:.3f}"
        for name in METHODS
    }


if __name__ == "__main__":
    run(main)
