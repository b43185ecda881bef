"""Real voters, replayed: what a few votes of a new user predict of the others."""

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
from research.command_line import (
    DataFolder,
    IsJson,
    Seed,
    Topics,
    print_result,
    run,
    whole_numbers,
)
from research.preferences.replay import METHODS, MIN_HIDDEN, Replay, replay_votes
from research.preferences.votes import VoteTable, load_votes

ENOUGH_USERS = 100  # users with 20 votes or more that a topic needs to be counted in the mean
PREDICTORS = ("population", "ridge", "ours, random", "ours, chosen", "control")  # printed


def replay_users(
    folder: Path,
    *,
    n_votes: Sequence[int] = (0, 5, 10, 20, 40),
    n_repeats: int = 1,
    topics: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy of every method after each number of votes, by topic and on average.

    Args:
        folder: Holds `items.jsonl` and `votes.jsonl` (`research.preferences.votes`).
        n_votes: Numbers of votes shown.
        n_repeats: Times that folds and hidden votes are sampled anew; users stay the clusters.
        topics: Which topics; all where empty.
        seed: Random seed of the study.

    Returns:
        `topics`: one row for each topic and number of votes; `mean`: averages over the topics with
        enough users at that number; `notes`: why one of them is empty.

    Raises:
        InvalidInputError: the folder's files are not of the schema, a topic is unknown, or a number
            of votes is negative or more than anybody gave.
    """
    if not n_votes or min(n_votes) < 0:
        raise InvalidInputError(f"The numbers of votes {list(n_votes)} must be zero or more.")
    tables = load_votes(folder, topics=topics)
    most = max((int(table.seen.sum(axis=1).max()) for table in tables), default=0)
    if max(n_votes) > most:
        raise InvalidInputError(
            f"{max(n_votes)} votes cannot be shown, because nobody gave more than {most}; ask for "
            "fewer."
        )
    rows: list[dict[str, Any]] = []
    for table in tables:
        repeats = [
            replay_votes(table, n_votes=n_votes, seed=seed + repeat) for repeat in range(n_repeats)
        ]
        rows += _topic_rows(table, repeats, seed=seed)
    means = [row for count in n_votes if (row := _mean_row(rows, count)) is not None]
    notes: list[str] = []
    if not rows:
        notes.append(
            f"no topic has 2 users with enough votes: a third of a user's votes, at least "
            f"{MIN_HIDDEN}, are hidden, and 5 or as many as are shown must be left"
        )
    if not means:
        notes.append(f"no mean: no topic has {ENOUGH_USERS} users with 20 votes or more")
    return {
        "kind": "users-replay",
        "metric": "share of pairs of hidden votes of a new user in which the more favourable one "
        "is predicted; mean over users",
        "interval": "95 %, bootstrap of users",
        "seed": seed,
        "n_repeats": n_repeats,
        "enough_users": ENOUGH_USERS,
        "topics": rows,
        "mean": means,
        "notes": notes,
    }


def _topic_rows(table: VoteTable, repeats: Sequence[Replay], *, seed: int) -> list[dict[str, Any]]:
    many = int((table.seen.sum(axis=1) >= 20).sum())
    rows: list[dict[str, Any]] = []
    for index, count in enumerate(repeats[0].n_votes):
        scores = {
            name: np.concatenate([replay.scores[name][index] for replay in repeats])
            for name in METHODS
        }
        n_users = int(np.isfinite(scores["ridge"]).sum() / len(repeats))
        if n_users < 2:
            continue
        row: dict[str, Any] = {
            "topic": table.topic,
            "votes": count,
            "users": n_users,
            "is_enough": many >= ENOUGH_USERS and n_users >= ENOUGH_USERS // 2,
        }
        clusters = np.tile(np.arange(len(table.votes)), len(repeats))
        for name in METHODS:
            row[name] = _interval(scores[name], clusters, seed=seed)
            row[f"{name} - ridge"] = _interval(scores[name] - scores["ridge"], clusters, seed=seed)
        rows.append(row)
    return rows


def _interval(
    values: Float[ndarray, " users"], clusters: ndarray, *, seed: int
) -> dict[str, float | int]:
    is_scored = np.isfinite(values)
    return bootstrap_interval(
        values[is_scored], clusters=clusters[is_scored], generator=generator_for(seed, "bootstrap")
    ).to_json()


def _mean_row(rows: Sequence[dict[str, Any]], count: int) -> dict[str, Any] | None:
    """Averages over topics with enough users; half-widths as of independent topics."""
    counted = [row for row in rows if row["votes"] == count and row["is_enough"]]
    if not counted:
        return None
    mean: dict[str, Any] = {"votes": count, "topics": len(counted)}
    names = [key for key, value in counted[0].items() if isinstance(value, dict)]
    for name in names:
        estimates = np.array([row[name]["estimate"] for row in counted])
        widths = np.array([row[name]["high"] - row[name]["low"] for row in counted]) / 2.0
        half = float(np.sqrt((widths**2).sum())) / len(counted)
        estimate = float(estimates.mean())
        mean[name] = {"estimate": estimate, "low": estimate - half, "high": estimate + half}
    return mean


def _accuracies(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row that fit on a terminal."""
    means = f"mean of {row['topics']} topics" if "topics" in row else ""
    users = "" if means else f"{row['topic']}, {row['users']} users"
    few = "" if row.get("is_enough", True) else " (too few)"
    named = {name: row[name]["estimate"] for name in PREDICTORS}
    gain = "ours, chosen - ridge"
    return {"topic": f"{means}{users}{few}", "votes": row["votes"], **named, gain: row[gain]}


def main(
    data: DataFolder,
    *,
    votes: Annotated[str, typer.Option(help="Numbers of votes shown.")] = "0,5,10,20,40",
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions, each with new splits.")] = 1,
    topic: Topics = None,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Real voters: how well a few votes of a new user predict the others."""
    counts = whole_numbers(votes, what="numbers of votes")
    replayed = replay_users(data, n_votes=counts, n_repeats=repeats, topics=topic or (), seed=seed)
    if not is_json:
        replayed |= {
            part: [_accuracies(row) for row in replayed[part]] for part in ("topics", "mean")
        }
    print_result(replayed, is_json=is_json)


if __name__ == "__main__":
    run(main)
