"""Statements that nobody has voted on: do a voter's own votes say more of them than everybody's?

    python -m research.preferences.unseen DATA_DIR --out out/unseen

`DATA_DIR` as `research.preferences.votes` reads it, with a `text` for each item. Statements are
held out in folds and, crossed with them, users: the head of `research.preferences.head` is fitted
to the training users' votes on the training statements. Of a held-out user so many votes on
training statements are shown, and those on held-out statements, of which the text is all that is
known, are predicted. The score is the share of pairs of them that differ in which the more
favourable one is predicted (half for a tie), by user and fold of statements. Intervals are over
users and folds of statements both; those of a mean over topics, over topics.

`population` is the same head without the user's votes. `stranger` gives each user another one's
votes, and must gain nothing. `texts alone` takes the shown votes as on texts that nobody else has
judged. `known mean` adds the user's own part to the true mean vote of each held-out statement.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.feature_extraction.text import TfidfVectorizer

from palate.core.errors import InvalidInputError
from palate.core.files import numbered_jsonl, write_text_atomic
from palate.core.seeds import generator_for
from palate.metrics.intervals import bootstrap_interval
from palate.rewards.embedding import load_embedder
from palate.rewards.settings import EMBEDDER
from research.command_line import (
    DataFolder,
    IsJson,
    Seed,
    Topics,
    print_result,
    run,
    whole_numbers,
)
from research.preferences.factors import VoteFactors, fit_coefficients, fit_factors
from research.preferences.head import PreferenceHead, head_of
from research.preferences.votes import VoteTable, load_votes

N_ITEM_FOLDS, N_USER_FOLDS = 10, 3
RANK = 6
ENOUGH_USERS = 50  # that a topic needs to count in the mean
LONGEST = 256  # tokens of a statement that are embedded
GAINS = {  # name of a column: differences of predictors' scores
    "gain": ("embedding", "embedding population"),
    "word counts": ("word counts", "word counts population"),
    "texts alone": ("embedding, texts alone", "embedding population"),
    "stranger": ("embedding, stranger", "embedding population"),
    "known mean": ("known mean, embedding", "known mean"),
}
DIFFERENCE = "gain less that of word counts"
COLUMNS = (*GAINS, DIFFERENCE)

Embed = Callable[[Sequence[str]], Float[ndarray, "texts features"]]


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of users on folds of statements, one after the other."""

    users: Int[ndarray, " scores"]
    folds: Int[ndarray, " scores"]
    scores: dict[str, Float[ndarray, " scores"]]  # by predictor


def predict_unseen(
    folder: Path,
    embed: Embed,
    *,
    n_votes: Sequence[int] = (10, 40),
    topics: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Gains over the population on statements nobody voted on, by topic and on average.

    Args:
        folder: Holds `items.jsonl` with texts, and `votes.jsonl`.
        embed: Sentence embeddings of texts.
        n_votes: Numbers of votes shown.
        topics: Which topics; all where empty.
        seed: Random seed of folds, shown votes and first loadings.

    Raises:
        InvalidInputError: the folder's files are not of the schema, an item has no text, a topic is
            unknown, or a number of votes is not positive.
    """
    if not n_votes or min(n_votes) < 1:
        raise InvalidInputError(f"The numbers of votes {list(n_votes)} must be one or more.")
    tables = load_votes(folder, topics=topics)
    texts = item_texts(folder / "items.jsonl")
    rows: list[dict[str, Any]] = []
    for table in tables:
        own = [texts[table.topic, item] for item in table.items]
        shares, scored = score_topic(table, own, embed(own), n_votes=n_votes, seed=seed)
        for count, part in scored.items():
            rows.append(
                {
                    "topic": table.topic,
                    "votes": count,
                    "users": len(np.unique(part.users)),
                    "statements": len(own),
                    "share": float(np.mean(shares)),
                    "population": float(part.scores["embedding population"].mean()),
                    "population of word counts": float(
                        part.scores["word counts population"].mean()
                    ),
                    "true mean": float(part.scores["known mean"].mean()),
                    **_gains(part, seed=seed),
                }
            )
    means = [row for count in n_votes if (row := _mean_row(rows, count, seed=seed)) is not None]
    return {"seed": seed, "enough_users": ENOUGH_USERS, "topics": rows, "mean": means}


def item_texts(path: Path) -> dict[tuple[str, str], str]:
    """The text of each item, by topic and identifier.

    Raises:
        InvalidInputError: an item has no text.
    """
    texts: dict[tuple[str, str], str] = {}
    for number, row in numbered_jsonl(path, what="items file").items():
        text = row.get("text")
        if not isinstance(text, str):
            raise InvalidInputError(f"Line {number} of items.jsonl has no 'text'; add it.")
        texts[str(row.get("conv", "")), str(row.get("item"))] = text
    return texts


def score_topic(
    table: VoteTable,
    texts: Sequence[str],
    embeddings: Float[ndarray, "items features"],
    *,
    n_votes: Sequence[int],
    seed: int,
) -> tuple[list[float], dict[int, Scored]]:
    """The shares that heads on embeddings took, and scores after each number of votes."""
    n_users, n_items = table.votes.shape
    draw = partial(generator_for, seed, table.topic)
    item_folds = draw("items").permutation(n_items) % N_ITEM_FOLDS
    user_folds = draw("users").permutation(n_users) % N_USER_FOLDS
    shares: list[float] = []
    rows: dict[int, list[tuple[int, int, dict[str, float]]]] = {count: [] for count in n_votes}
    for fold in range(min(N_ITEM_FOLDS, n_items)):
        is_out = item_folds == fold
        features = {"embedding": embeddings, "word counts": _word_counts(texts, ~is_out)}
        for group in range(N_USER_FOLDS):
            training = table.votes[user_folds != group]
            heads = _heads(training[:, ~is_out], features, ~is_out, draw("fit", fold, group))
            shares.append(heads["embedding"].share)
            others = training[:, is_out]
            counts = np.isfinite(others).sum(axis=0)
            means = np.where(np.isfinite(others), others, 0.0).sum(axis=0) / np.maximum(counts, 1)
            unseen = {name: head.items(features[name][is_out]) for name, head in heads.items()}
            users = np.flatnonzero(user_folds == group)
            order = draw("shown", fold, group).permuted(
                np.tile(np.arange((~is_out).sum()), (len(users), 1)), axis=1
            )
            for count in n_votes:
                own, shown = _shown(table.votes[users][:, ~is_out], order, count)
                held = table.votes[users[own]][:, is_out]
                predicted = _predictions(heads, unseen, means, shown)
                rows[count] += [
                    (int(users[own][place]), fold, scores)
                    for place, votes in enumerate(held)
                    if (scores := _pair_scores(votes, predicted, place))
                ]
    return shares, {count: _scored(own) for count, own in rows.items() if len(own) > 1}


def _heads(
    votes: ndarray,
    features: dict[str, ndarray],
    is_training: ndarray,
    generator: np.random.Generator,
) -> dict[str, PreferenceHead]:
    judged = fit_factors(votes, rank=RANK, n_rounds=40, generator=generator)
    return {name: head_of(judged, votes, own[is_training]) for name, own in features.items()}


def _word_counts(texts: Sequence[str], is_training: ndarray) -> Float[ndarray, "items features"]:
    counts = TfidfVectorizer(sublinear_tf=True)
    counts.fit([text for text, own in zip(texts, is_training, strict=True) if own])
    return counts.transform(texts).toarray()


def _shown(
    votes: Float[ndarray, "users items"], order: Int[ndarray, "users items"], count: int
) -> tuple[ndarray, Float[ndarray, "some items"]]:
    """Which users have so many votes, and those shown of each, the first of their order."""
    enough = np.flatnonzero(np.isfinite(votes).sum(axis=1) >= count)
    shown = np.full((len(enough), votes.shape[1]), np.nan)
    for row, user in enumerate(enough):
        own = order[user][np.isfinite(votes[user, order[user]])][:count]
        shown[row, own] = votes[user, own]
    return enough, shown


def _predictions(
    heads: dict[str, PreferenceHead],
    unseen: dict[str, VoteFactors],
    means: Float[ndarray, " items"],
    shown: Float[ndarray, "users items"],
) -> dict[str, Float[ndarray, "users items"]]:
    predicted: dict[str, ndarray] = {"known mean": np.tile(means, (len(shown), 1))}
    for name, head in heads.items():
        items = unseen[name]
        own, _ = fit_coefficients(head.judged, shown)
        predicted[f"{name} population"] = np.tile(items.offset, (len(shown), 1))
        predicted[name] = items.predict(own)
        predicted[f"{name}, stranger"] = items.predict(np.roll(own, 1, axis=0))
        predicted[f"{name}, texts alone"] = items.predict(fit_coefficients(head.left_out, shown)[0])
        predicted[f"known mean, {name}"] = means + own @ items.loadings.T
    return predicted


def _pair_scores(
    votes: Float[ndarray, " items"], predicted: dict[str, ndarray], place: int
) -> dict[str, float]:
    """Share of a user's differing pairs that each predictor has right; empty without one."""
    is_seen = np.isfinite(votes)
    above = votes[is_seen][:, None] > votes[is_seen][None]
    if not above.any():
        return {}
    rows = ((name, expected[place, is_seen]) for name, expected in predicted.items())
    return {
        name: 0.5 + 0.5 * float(np.sign(own[:, None] - own[None])[above].mean())
        for name, own in rows
    }


def _scored(rows: Sequence[tuple[int, int, dict[str, float]]]) -> Scored:
    return Scored(
        np.array([user for user, _, _ in rows]),
        np.array([fold for _, fold, _ in rows]),
        {name: np.array([scores[name] for _, _, scores in rows]) for name in rows[0][2]},
    )


def _gains(part: Scored, *, seed: int) -> dict[str, dict[str, float | int]]:
    gains = {name: part.scores[one] - part.scores[other] for name, (one, other) in GAINS.items()}
    gains[DIFFERENCE] = gains["gain"] - gains["word counts"]
    return {
        name: bootstrap_interval(
            values,
            clusters=part.users,
            second_clusters=part.folds,
            generator=generator_for(seed, "gains"),
        ).to_json()
        for name, values in gains.items()
    }


def _mean_row(rows: Sequence[dict[str, Any]], count: int, *, seed: int) -> dict[str, Any] | None:
    """Means over the topics with enough users, each topic one observation."""
    counted = [row for row in rows if row["votes"] == count and row["users"] >= ENOUGH_USERS]
    if len(counted) < 2:
        return None
    means = {
        name: bootstrap_interval(
            [row[name]["estimate"] for row in counted], generator=generator_for(seed, "topics")
        ).to_json()
        for name in COLUMNS
    }
    return {"votes": count, "topics": len(counted), **means}


def main(
    data_dir: DataFolder,
    *,
    votes: Annotated[str, typer.Option(help="Numbers of votes shown.")] = "10,40",
    topic: Topics = None,
    out: Annotated[Path | None, typer.Option(help="Report to write, without ending.")] = None,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Do a voter's own votes say more of statements nobody voted on than everybody's?"""
    embedder = load_embedder(EMBEDDER, max_length=LONGEST)
    counts = whole_numbers(votes, what="numbers of votes")
    facts = predict_unseen(data_dir, embedder.embed, n_votes=counts, topics=topic or (), seed=seed)
    if out is not None:
        write_text_atomic(out.with_suffix(".md"), as_markdown(facts))
    print_result(facts, is_json=is_json)


def as_markdown(facts: dict[str, Any]) -> str:
    """The tables, in points: gains are differences of shares of pairs times 100."""
    names = list(COLUMNS)
    lines = [
        "| topic | votes | users | statements | share | population, its word counts | "
        f"{' | '.join(names)} |",
        "|---" * (6 + len(names)) + "|",
    ]
    for row in facts["topics"]:
        cells = [row["topic"], row["votes"], row["users"], row["statements"]]
        levels = [100 * row[name] for name in ("population", "population of word counts")]
        cells += [f"{row['share']:.2f}", f"{levels[0]:.1f}, {levels[1]:.1f}"]
        lines.append("| " + " | ".join(map(str, cells + [_points(row[n]) for n in names])) + " |")
    for row in facts["mean"]:
        cells = [f"mean of {row['topics']} topics", row["votes"], "", "", "", ""]
        lines.append("| " + " | ".join(map(str, cells + [_points(row[n]) for n in names])) + " |")
    return "\n".join(lines) + "\n"


def _points(interval: dict[str, float]) -> str:
    low, high = 100 * interval["low"], 100 * interval["high"]
    return f"{100 * interval['estimate']:+.1f} [{low:+.1f}, {high:+.1f}]"


if __name__ == "__main__":
    run(main)
