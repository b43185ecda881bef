"""Replay of real voters: how well a new user's hidden votes are predicted after a few votes.

Users are held out in folds: items are fitted on the other folds. Of each held-out user a third of
the votes (at least eight) is hidden; from the rest, votes are shown either at random or as
`select_items` orders them. The score is the share of pairs of hidden votes that differ in which the
more favourable one is predicted (half for a tie), per user, so that every user counts once.

The baseline is what a practitioner would build first: a low-rank table and ridge regressions
(Koren, Bell & Volinsky 2009, "Matrix factorization techniques for recommender systems"), its rank
and ridge chosen by cross-validation over training users. The control gives each user the answers of
a stranger: it must not beat the population's mean.

Blind sides: only items a user chose to vote on can be asked or scored, so nothing holds for items
that users skip; a third of a few votes makes a noisy score for each user.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from palate.core.seeds import generator_for
from research.preferences.factors import VoteFactors, fit_coefficients, fit_factors, select_items
from research.preferences.votes import VoteTable

METHODS = ("population", "ridge", "ours, random", "ours, chosen", "ridge, chosen", "control")
MIN_HIDDEN = 8
RIDGE_RANKS = (2, 4, 8)
RIDGE_PENALTIES = (2.0, 5.0, 15.0)
TUNING_VOTES = 10  # votes shown when the baseline's settings are chosen
OFFSET_VOTES = 2.0  # an item's mean is shrunk towards zero as by this many votes of zero
N_ROUNDS = 15


@dataclass(frozen=True, eq=False)
class Replay:
    """Scores of one topic.

    Attributes:
        topic: Its name.
        n_votes: Votes shown, `[counts]`.
        scores: For each method `[counts, users]`, share of pairs predicted; NaN for users with too
            few votes.
    """

    topic: str
    n_votes: tuple[int, ...]
    scores: dict[str, Float[ndarray, "counts users"]]


def replay_votes(
    table: VoteTable,
    *,
    n_votes: Sequence[int],
    n_folds: int = 5,
    rank: int = 8,
    seed: int = 0,
) -> Replay:
    """Scores of every method after each number of votes, for every user in turn held out.

    Args:
        table: Votes of one topic.
        n_votes: Numbers of votes shown.
        n_folds: Folds of users.
        rank: Largest number of factors.
        seed: Random seed of folds, hidden votes, orders and first loadings.
    """
    n_users = len(table.votes)
    hidden = _hide(table.seen, generator=generator_for(seed, table.topic, "hidden"))
    folds = generator_for(seed, table.topic, "folds").permutation(n_users) % n_folds
    scores = {name: np.full((len(n_votes), n_users), np.nan) for name in METHODS}
    for fold in range(n_folds):
        users = np.flatnonzero((folds == fold) & hidden.any(axis=1))
        training = table.votes[folds != fold]
        if not len(users) or not len(training):
            continue
        generator = generator_for(seed, table.topic, "fit", fold)
        factors = fit_factors(training, rank=rank, generator=generator)
        ridge = _tuned_ridge(training, generator=generator)
        held = _Held(table.votes[users], hidden[users])
        orders = {
            "random": _random_order(held.open, n_questions=max(n_votes), generator=generator),
            "chosen": select_items(factors, held.open, n_questions=max(n_votes)),
        }
        for row, count in enumerate(n_votes):
            shown = {name: held.shown(order, count) for name, order in orders.items()}
            predicted = _predictions(factors, ridge, shown)
            enough = held.open.sum(axis=1) >= count
            for name, expected in predicted.items():
                scores[name][row, users[enough]] = _pair_scores(expected, held)[enough]
    return Replay(table.topic, tuple(n_votes), scores)


@dataclass(frozen=True, eq=False)
class RidgeTable:
    """Items of the baseline: a low-rank table by alternating ridge regressions.

    Attributes:
        offset: Shrunk mean vote.
        loadings: Change of the vote by one unit of each factor.
        ridge: Penalty of coefficients and of loadings.
    """

    offset: Float[ndarray, " items"]
    loadings: Float[ndarray, "items factors"]
    ridge: float


def fit_ridge_table(
    votes: Float[ndarray, "users items"],
    *,
    rank: int,
    ridge: float,
    generator: np.random.Generator,
) -> RidgeTable:
    """The baseline's items, from training users; NaN where there is no vote."""
    seen = np.isfinite(votes).astype(np.float64)
    filled = np.where(seen > 0, votes, 0.0)
    offset = filled.sum(axis=0) / (seen.sum(axis=0) + OFFSET_VOTES)
    centred = seen * (filled - offset)
    loadings = 0.1 * generator.standard_normal((votes.shape[1], rank))
    for _ in range(N_ROUNDS):
        coefficients = _ridge(seen, centred, loadings, ridge=ridge)
        loadings = _ridge(seen.T, centred.T, coefficients, ridge=ridge)
    return RidgeTable(offset, loadings, ridge)


def predict_ridge(
    table: RidgeTable, votes: Float[ndarray, "users items"]
) -> Float[ndarray, "users items"]:
    """Expected votes on all items, from the votes given."""
    seen = np.isfinite(votes).astype(np.float64)
    centred = np.where(seen > 0, votes - table.offset, 0.0)
    coefficients = _ridge(seen, centred, table.loadings, ridge=table.ridge)
    return table.offset + coefficients @ table.loadings.T


@dataclass(frozen=True, eq=False)
class _Held:
    votes: Float[ndarray, "users items"]
    hidden: Bool[ndarray, "users items"]

    @property
    def open(self) -> Bool[ndarray, "users items"]:
        return np.isfinite(self.votes) & ~self.hidden

    def shown(self, order: ndarray, count: int) -> Float[ndarray, "users items"]:
        """Votes on the first `count` items of each user's order; NaN elsewhere."""
        votes = np.full(self.votes.shape, np.nan)
        rows, steps = np.nonzero(order[:, :count] >= 0)
        columns = order[rows, steps]
        votes[rows, columns] = self.votes[rows, columns]
        return votes


def _predictions(
    factors: VoteFactors, ridge: RidgeTable, shown: dict[str, Float[ndarray, "users items"]]
) -> dict[str, Float[ndarray, "users items"]]:
    stranger = np.roll(shown["random"], 1, axis=0)
    return {
        "population": np.broadcast_to(ridge.offset, shown["random"].shape),
        "ridge": predict_ridge(ridge, shown["random"]),
        "ours, random": factors.predict(fit_coefficients(factors, shown["random"])[0]),
        "ours, chosen": factors.predict(fit_coefficients(factors, shown["chosen"])[0]),
        "ridge, chosen": predict_ridge(ridge, shown["chosen"]),
        "control": factors.predict(fit_coefficients(factors, stranger)[0]),
    }


def _hide(
    seen: Bool[ndarray, "users items"], *, generator: np.random.Generator
) -> Bool[ndarray, "users items"]:
    """A third of each user's votes, at least eight; nothing of users with too few to show 5."""
    hidden = np.zeros(seen.shape, dtype=bool)
    for user, row in enumerate(seen):
        voted = np.flatnonzero(row)
        n_hidden = max(MIN_HIDDEN, len(voted) // 3)
        if len(voted) >= MIN_HIDDEN + 5:
            hidden[user, generator.permutation(voted)[:n_hidden]] = True
    return hidden


def _random_order(
    allowed: Bool[ndarray, "users items"], *, n_questions: int, generator: np.random.Generator
) -> ndarray:
    keys = np.where(allowed, generator.random(allowed.shape), 2.0)
    order = np.argsort(keys, axis=1)[:, :n_questions]
    return np.where(np.take_along_axis(allowed, order, axis=1), order, -1)


def _pair_scores(expected: Float[ndarray, "users items"], held: _Held) -> Float[ndarray, " p"]:
    """Share of each user's differing hidden pairs predicted; NaN where all hidden votes agree."""
    scores = np.full(len(expected), np.nan)
    for user, row in enumerate(held.hidden):
        votes, guess = held.votes[user, row], expected[user, row]
        above = votes[:, None] > votes[None]
        if above.any():
            signs = np.sign(guess[:, None] - guess[None])[above]
            scores[user] = 0.5 + 0.5 * signs.mean()
    return scores


def _tuned_ridge(
    votes: Float[ndarray, "users items"], *, generator: np.random.Generator
) -> RidgeTable:
    """The baseline with rank and ridge chosen on a fifth of the training users."""
    inner = generator.permutation(len(votes)) % 5 == 0
    hidden = _hide(np.isfinite(votes[inner]), generator=generator)
    held = _Held(votes[inner], hidden)
    order = _random_order(held.open, n_questions=TUNING_VOTES, generator=generator)
    shown = held.shown(order, TUNING_VOTES)
    best, settings = -np.inf, (RIDGE_RANKS[0], RIDGE_PENALTIES[0])
    for rank, ridge in product(RIDGE_RANKS, RIDGE_PENALTIES):
        table = fit_ridge_table(votes[~inner], rank=rank, ridge=ridge, generator=generator)
        scores = _pair_scores(predict_ridge(table, shown), held)
        score = float(np.nanmean(scores)) if np.isfinite(scores).any() else 0.0
        if score > best:
            best, settings = score, (rank, ridge)
    return fit_ridge_table(votes, rank=settings[0], ridge=settings[1], generator=generator)


def _ridge(
    seen: Float[ndarray, "rows columns"],
    values: Float[ndarray, "rows columns"],
    loadings: Float[ndarray, "columns factors"],
    *,
    ridge: float,
) -> Float[ndarray, "rows factors"]:
    rank = loadings.shape[1]
    outer = (loadings[:, :, None] * loadings[:, None, :]).reshape(-1, rank * rank)
    gram = (seen @ outer).reshape(-1, rank, rank) + ridge * np.eye(rank)
    return np.linalg.solve(gram, (values @ loadings)[..., None])[..., 0]
