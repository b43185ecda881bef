"""Reward factorisation: a few factors behind many users' votes, and which item to ask about next.

A vote of user p on item j is `offset_j + loading_j . z_p + noise`, with coefficients
`z ~ normal(0, I)` over the factors and noise of variance `noise_j` of its own for each item. Both
are fitted by variational Bayes: each user and each item has a normal posterior, and every factor
has a precision of its own that shrinks it away where the votes do not carry it (automatic
relevance), so the rank need not be tuned. A new user starts from the standard normal prior.

Source: Bishop 1999, "Variational principal components"; Ilin & Raiko 2010, "Practical approaches to
principal component analysis in the presence of missing values"; reward factorisation: PReF, arXiv
2503.06358, LoRe, arXiv 2504.14439; questions: Chaloner & Verdinelli 1995, "Bayesian experimental
design: a review".

Choices of ours:

1. Loadings and offset of an item share its noise as scale (a conjugate prior), and the noise has an
   inverse-gamma prior worth 5 votes at variance one half.
2. Votes are taken as numbers: agree, pass and disagree are equally far apart.
3. Missing votes are taken as missing at random given the coefficients. A vote that is missing
   because of its value is not modelled.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from palate.core.errors import InvalidInputError

NOISE_VOTES = 5.0  # the prior of an item's noise is worth this many votes
NOISE_VARIANCE = 0.5  # of each of them, in units of the votes' variance
RELEVANCE_FROM = 10  # rounds before coordinates start to be shrunk away


@dataclass(frozen=True, eq=False)
class VoteFactors:
    """The items, fitted to the votes of many users.

    Attributes:
        offset: Expected vote of an average user.
        loadings: Change of the vote by one unit of each factor.
        spread: `[items, factors + 1, factors + 1]`, posterior covariance of loadings and offset, in
            units of `noise`.
        noise: Variance of a vote around its expectation.
        relevance: Precision of each factor's loadings; large where it is shrunk away.
    """

    offset: Float[ndarray, " items"]
    loadings: Float[ndarray, "items factors"]
    spread: Float[ndarray, "items joint joint"]
    noise: Float[ndarray, " items"]
    relevance: Float[ndarray, " factors"]

    def moments(self) -> Float[ndarray, "items joint joint"]:
        """Expected outer products of loadings and offset, over the noise variance."""
        joint = np.concatenate([self.loadings, self.offset[:, None]], axis=1)
        outer = joint[:, :, None] * joint[:, None, :]
        return outer / self.noise[:, None, None] + self.spread

    def predict(
        self, coefficients: Float[ndarray, "users factors"]
    ) -> Float[ndarray, "users items"]:
        """Expected votes of users with these coefficients."""
        return self.offset + coefficients @ self.loadings.T


def fit_factors(
    votes: Float[ndarray, "users items"],
    *,
    rank: int = 8,
    n_rounds: int = 60,
    generator: np.random.Generator,
) -> VoteFactors:
    """Factors of a table of votes with gaps.

    Args:
        votes: `[users, items]`; NaN where there is none.
        rank: Largest number of factors; those not carried by the votes are shrunk away.
        n_rounds: Rounds of variational Bayes.
        generator: Samples the first loadings.

    Raises:
        InvalidInputError: there are no votes, or the rank is not positive.
    """
    seen = np.isfinite(votes).astype(np.float64)
    counts = seen.sum(axis=0)
    if rank < 1 or not counts.any():
        raise InvalidInputError(
            f"A table with {int(counts.sum())} votes cannot be factored to rank {rank}; "
            "give votes and a rank of at least 1."
        )
    filled = np.where(seen > 0, votes, 0.0)
    mean = filled.sum() / counts.sum()
    scale = float(np.sqrt((seen * (filled - mean) ** 2).sum() / counts.sum())) or 1.0
    filled = seen * (filled - mean) / scale
    factors = VoteFactors(
        offset=filled.sum(axis=0) / (counts + 2.0),
        loadings=0.3 * generator.standard_normal((votes.shape[1], rank)),
        spread=np.tile(0.01 * np.eye(rank + 1), (votes.shape[1], 1, 1)),
        noise=np.full(votes.shape[1], 0.6),
        relevance=np.ones(rank),
    )
    for step in range(n_rounds):
        means, covariances = _users(factors, seen, filled)
        factors = _items(
            factors, seen, filled, users=(means, covariances), is_shrinking=step > RELEVANCE_FROM
        )
    return VoteFactors(
        offset=mean + scale * factors.offset,
        loadings=scale * factors.loadings,
        spread=factors.spread,
        noise=scale**2 * factors.noise,
        relevance=factors.relevance,
    )


def fit_coefficients(
    factors: VoteFactors, votes: Float[ndarray, "users items"]
) -> tuple[Float[ndarray, "users factors"], Float[ndarray, "users factors factors"]]:
    """Posterior means and covariances of users' coefficients, given their votes.

    Without votes the prior comes back. Uncertain items count for less.
    """
    seen = np.isfinite(votes).astype(np.float64)
    return _users(factors, seen, np.where(seen > 0, votes, 0.0))


def _users(
    factors: VoteFactors, seen: Float[ndarray, "users items"], filled: Float[ndarray, "users items"]
) -> tuple[Float[ndarray, "users factors"], Float[ndarray, "users factors factors"]]:
    rank = factors.loadings.shape[1]
    moments = factors.moments()
    inner = np.ascontiguousarray(moments[:, :rank, :rank]).reshape(-1, rank * rank)
    precision = (seen @ inner).reshape(-1, rank, rank) + np.eye(rank)
    linear = (filled / factors.noise) @ factors.loadings - seen @ moments[:, :rank, rank]
    covariances = np.linalg.inv(precision)
    return np.matmul(covariances, linear[..., None])[..., 0], covariances


def _items(
    factors: VoteFactors,
    seen: Float[ndarray, "users items"],
    filled: Float[ndarray, "users items"],
    *,
    users: tuple[Float[ndarray, "users factors"], Float[ndarray, "users factors factors"]],
    is_shrinking: bool,
) -> VoteFactors:
    means, covariances = users
    rank, n_items = means.shape[1], seen.shape[1]
    joint = np.concatenate([means, np.ones((len(means), 1))], axis=1)
    outer = joint[:, :, None] * joint[:, None, :]
    outer[:, :rank, :rank] += covariances
    sums = (seen.T @ outer.reshape(len(means), -1)).reshape(n_items, rank + 1, rank + 1)
    cross = filled.T @ joint
    precision = np.diag([*factors.relevance, 1.0])
    spread = np.linalg.inv(sums + precision)
    both = np.matmul(spread, cross[..., None])[..., 0]  # the prior mean of both is zero
    squares = (filled**2).sum(axis=0) - 2.0 * np.einsum("ji,ji->j", both, cross)
    squares += np.einsum("ji,jik,jk->j", both, sums + precision, both)
    counts = seen.sum(axis=0)
    noise = (np.maximum(squares, 0.0) + NOISE_VOTES * NOISE_VARIANCE) / (counts + NOISE_VOTES)
    relevance = factors.relevance
    if is_shrinking:
        sizes = (both[:, :rank] ** 2 / noise[:, None]).sum(axis=0)
        relevance = n_items / (sizes + np.einsum("jii->i", spread[:, :rank, :rank]))
    return VoteFactors(
        offset=both[:, rank],
        loadings=both[:, :rank],
        spread=spread,
        noise=noise,
        relevance=relevance,
    )


def select_items(
    factors: VoteFactors, allowed: Bool[ndarray, "users items"], *, n_questions: int
) -> Int[ndarray, "users questions"]:
    """Items in the order in which to ask each user, from the prior.

    With a normal belief and normal votes the covariance after an answer does not depend on the
    answer, so a whole list can be chosen ahead. The next item is the one that most reduces the
    expected squared error of the user's votes on all items (A-optimal for prediction).

    Args:
        factors: The items.
        allowed: Which items can be asked of whom.
        n_questions: How many; -1 fills up where fewer are allowed.
    """
    n_users, n_items = allowed.shape
    n_factors = factors.loadings.shape[1]
    loadings = factors.loadings
    own = np.trace(factors.spread[:, :n_factors, :n_factors], axis1=1, axis2=2)
    noise = factors.noise * (1.0 + own)  # an uncertain loading acts as noise on its item
    target = loadings.T @ loadings / n_items
    covariances = np.tile(np.eye(n_factors), (n_users, 1, 1))
    open_items = allowed.copy()
    rows = np.arange(n_users)
    order = np.full((n_users, n_questions), -1)
    for step in range(n_questions):
        directions = covariances @ loadings.T  # [users, factors, items]
        variance = (loadings.T * directions).sum(axis=1) + noise
        gain = (directions * (target @ directions)).sum(axis=1) / variance
        best = np.where(open_items, gain, -1.0).argmax(axis=1)
        is_open = open_items[rows, best]
        order[is_open, step] = best[is_open]
        open_items[rows, best] = False
        moved = directions[rows, :, best] / np.sqrt(variance[rows, best])[:, None]
        covariances -= np.where(is_open, 1.0, 0.0)[:, None, None] * (
            moved[:, :, None] * moved[:, None, :]
        )
    return order
