"""Questions by the loss they prevent, and which member of a portfolio to serve meanwhile.

`select_useful` asks about the pair whose answer most lowers the loss that a user may have from the
policies on offer, in the mean or at a quantile near the worst case. `sample_policy_pair` asks about
two answers that two draws from the belief would give. `expected_loss` bounds what any number of
further questions can gain, so it says when to stop.

Source: Frazier, Powell & Dayanik 2008, "A knowledge-gradient policy"; Howard 1966 (expected value
of perfect information); Spectral Souping, arXiv 2605.20408, exploration.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.types import Belief

TINY = 1e-12


@dataclass(frozen=True)
class ColdStart:
    """What to serve before the first answer: the minimax member of a portfolio.

    Attributes:
        member: Its index among the policies on offer.
        certified_loss: Nobody loses more than this by being served it, in reward units.
    """

    member: int
    certified_loss: float


@dataclass(frozen=True)
class Choice:
    """The policy to serve, and what may be lost by it.

    Attributes:
        member: Index among the policies on offer.
        expected_loss: Expected gain from knowing the user exactly, reward units; before the
            first answer the certified loss of the cold start, which holds for everybody.
        is_certified: Whether the loss is a certificate and not an expectation under the belief.
        n_answers: Answers it rests on.
        is_settled: Whether more questions cannot gain more than the tolerance.
    """

    member: int
    expected_loss: float
    is_certified: bool
    n_answers: int
    is_settled: bool


def choose_member(
    draws: Float[ndarray, "draws objectives"],
    values: Float[ndarray, "members objectives"],
    *,
    n_answers: int,
    cold_start: ColdStart,
    tolerance: float,
) -> Choice:
    """The member with the best expected value; the minimax member until the first answer.

    Args:
        draws: `[draws, objectives]`, preferences drawn from the belief.
        values: `[members, objectives]`, reward units, higher is better.
        n_answers: Answers the belief rests on.
        cold_start: Member and certificate for a user of whom nothing is known.
        tolerance: Loss that is small enough to stop asking, reward units.

    Raises:
        InvalidInputError: the cold start's member is not among the values.
    """
    if not 0 <= cold_start.member < len(values):
        raise InvalidInputError(
            f"The cold start's member {cold_start.member} is not among {len(values)} members."
        )
    if n_answers == 0:
        loss = cold_start.certified_loss
        return Choice(
            cold_start.member, loss, is_certified=True, n_answers=0, is_settled=loss <= tolerance
        )
    member = int((draws.mean(axis=0) @ values.T).argmax())
    loss = expected_loss(draws, values)
    return Choice(
        member, loss, is_certified=False, n_answers=n_answers, is_settled=loss <= tolerance
    )


def expected_loss(
    draws: Float[ndarray, "draws objectives"], values: Float[ndarray, "members objectives"]
) -> float:
    """Upper bound on what any further questions can gain in expectation, reward units.

    The expected value of the best member for each draw, less that of the member best on average
    (expected value of perfect information). It rests on the belief being right.
    """
    scores = draws @ values.T
    return float(scores.max(axis=1).mean() - scores.mean(axis=0).max())


def loss_reductions(
    draws: Float[ndarray, "draws objectives"],
    pairs: Float[ndarray, "pairs objectives"],
    *,
    values: Float[ndarray, "members objectives"],
    gain: float = 1.0,
    quantile: float | None = None,
) -> Float[ndarray, " pairs"]:
    """Expected fall of the user's loss by each answer, reward units.

    Args:
        draws: `[draws, objectives]` from the belief.
        pairs: `[pairs, objectives]`, reward differences.
        values: `[members, objectives]`, what can be served.
        gain: How sharply labels follow margins.
        quantile: Where absent the loss is the expected one (knowledge gradient, never negative).
            Else it is the loss that this share of believed preferences does not exceed, of the
            member for which it is least: near 1 the worst case within the credible region.
    """
    win = expit(gain * (draws @ np.asarray(pairs).T))  # [draws, pairs]
    shares = np.stack([win, 1.0 - win])  # by answer
    odds = shares.mean(axis=1)  # [answers, pairs]
    if quantile is None:
        means = np.einsum("aqd,do->aqo", shares.transpose(0, 2, 1), draws) / len(draws)
        best = (means @ values.T).max(axis=2).sum(axis=0)  # odds already within the means
        return best - (draws.mean(axis=0) @ values.T).max()
    scores = draws @ values.T
    losses = scores.max(axis=1, keepdims=True) - scores
    whole = np.ones((len(draws), 1)) / len(draws)
    before = _least_quantile(losses, whole, quantile=quantile)[0]
    after = np.stack(
        [
            _least_quantile(losses, share / (share.sum(axis=0) + TINY), quantile=quantile)
            for share in shares
        ]
    )
    return before - (odds * after).sum(axis=0)


def select_useful(
    draws: Float[ndarray, "draws objectives"],
    pairs: Float[ndarray, "pairs objectives"],
    *,
    values: Float[ndarray, "members objectives"],
    gain: float = 1.0,
    quantile: float | None = None,
) -> int:
    """Index of the pair that lowers the loss most (`loss_reductions`).

    Raises:
        InvalidInputError: there are no pairs.
    """
    _require_pairs(pairs)
    gains = loss_reductions(draws, pairs, values=values, gain=gain, quantile=quantile)
    return int(gains.argmax())


def sample_policy_pair(
    belief: Belief, answers: Float[ndarray, "answers features"], *, generator: np.random.Generator
) -> tuple[int, int]:
    """Two different answers, each the best under a draw from the belief.

    Raises:
        InvalidInputError: fewer than two answers.
    """
    if len(answers) < 2:
        raise InvalidInputError(f"A question needs two answers, but {len(answers)} are given.")
    draws = generator.multivariate_normal(belief.mean, belief.covariance, size=2, method="eigh")
    scores = np.asarray(answers) @ draws.T
    first = int(scores[:, 0].argmax())
    scores[first, 1] = -np.inf
    return first, int(scores[:, 1].argmax())


def _least_quantile(
    losses: Float[ndarray, "draws members"],
    shares: Float[ndarray, "draws pairs"],
    *,
    quantile: float,
) -> Float[ndarray, " pairs"]:
    """For each pair, the least over members of the weighted quantile of the loss."""
    best = np.full(shares.shape[1], np.inf)
    for member in range(losses.shape[1]):
        order = np.argsort(losses[:, member])
        below = np.cumsum(shares[order], axis=0) >= quantile - TINY
        position = np.where(below.any(axis=0), below.argmax(axis=0), len(order) - 1)
        best = np.minimum(best, losses[order[position], member])
    return best


def _require_pairs(pairs: Float[ndarray, "pairs features"]) -> None:
    if len(pairs) == 0:
        raise InvalidInputError("There is no pair to ask about; give at least one candidate.")
