"""How well a reward ranks pairs it has not seen, beside what length alone would do.

A reward model that does no better than "longer wins" has learned length. So accuracy never stands
alone: with it go its interval, the number of pairs, and three length baselines.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.core.seeds import generator_for
from palate.core.settings import Settings
from palate.metrics.intervals import bootstrap_interval, wilson_interval
from palate.rewards.bradley_terry import SparseRows, fit_bradley_terry, mean_loss
from palate.rewards.pairs import PairSet
from palate.rewards.texts import words_of

CONFIDENCE = 0.95
MOSTLY_LENGTH = 0.25  # share of pairs above one half
LENGTH_RIDGE = 1e-3  # two features need no shrinking, only a finite answer on separable pairs


class Accuracy(Settings):
    """Share of pairs ranked as users did, with its 95 % interval; ties count one half."""

    estimate: float
    low: float
    high: float
    n: int  # number of pairs
    n_groups: int  # number of groups of pairs that are not independent of one another
    method: str  # `wilson`, or `bootstrap` over groups where groups hold several pairs

    def __str__(self) -> str:
        """Estimate, interval and number of pairs."""
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


class HeldOut(Settings):
    """A reward on held-out pairs."""

    accuracy: Accuracy  # the reward's
    loss: float  # mean of `-log sigmoid(chosen - rejected)`, nats a pair; a coin has 0.693
    longer_wins: Accuracy  # accuracy of preferring the answer of more characters
    shorter_wins: Accuracy  # accuracy of preferring the answer of fewer
    length_only: Accuracy  # of the Bradley-Terry fit that sees only lengths, see `fit_length`
    prefers_longer: float | None = None  # share of pairs in which the reward prefers the longer

    @property
    def by_length(self) -> float:
        """Accuracy of the best of the three length baselines."""
        return max(self.longer_wins.estimate, self.shorter_wins.estimate, self.length_only.estimate)

    @property
    def length_warning(self) -> str | None:
        """A sentence where length decides most pairs, or decides them better than the reward."""
        if not self.is_above_length:
            return "no better than length alone, which it may have learned"
        share = 0.5 if self.prefers_longer is None else self.prefers_longer
        if abs(share - 0.5) < MOSTLY_LENGTH:
            return None
        return (
            f"mostly length: it prefers the longer answer in {share:.0%} of the held-out pairs, "
            f"users in {self.longer_wins.estimate:.0%}"
        )

    @property
    def is_above_length(self) -> bool:
        """Whether it gets more right than the best length baseline; chance may say so, too."""
        return self.accuracy.estimate > self.by_length


def accuracy_of(
    margins: Float[np.ndarray, " pairs"], *, groups: Sequence[str], seed: int = 0
) -> Accuracy:
    """Accuracy with its interval from the scores of chosen minus rejected.

    Wilson's interval when every group is one pair, otherwise a bootstrap over groups. When all or
    no pairs are right a bootstrap has no width; then it is Wilson's on the number of groups.

    Raises:
        InvalidInputError: there is no pair, a margin is not finite, or several pairs are one group.
    """
    if not np.all(np.isfinite(margins)):
        raise InvalidInputError("The score of a held-out pair is not finite; it cannot be ranked.")
    right = np.where(margins > 0, 1.0, np.where(margins < 0, 0.0, 0.5))
    n, n_groups = len(right), len(set(groups))
    estimate = float(right.mean())
    if n_groups == n or estimate in (0.0, 1.0):
        low, high = wilson_interval(estimate * n_groups, n_groups, confidence=CONFIDENCE)
        method = "wilson"
    else:
        generator = generator_for(seed, "accuracy")
        interval = bootstrap_interval(
            right, generator=generator, clusters=list(groups), confidence=CONFIDENCE
        )
        low, high, method = max(0.0, interval.low), min(1.0, interval.high), "bootstrap"
    return Accuracy(estimate=estimate, low=low, high=high, n=n, n_groups=n_groups, method=method)


def held_out_of(
    margins: Float[np.ndarray, " pairs"],
    *,
    validation: PairSet,
    length_coefficients: tuple[float, float],
    seed: int = 0,
) -> HeldOut:
    """How a reward ranks held-out pairs, beside the length baselines.

    Margins are `[pairs]`, raw score of chosen minus rejected on pairs that the reward has not seen;
    the length baseline's coefficients are those of `fit_length`.
    """
    longer = _characters(validation.chosen) - _characters(validation.rejected)
    fitted = _length_differences(validation) @ np.array(length_coefficients)
    agreed = np.sign(margins * longer)[longer != 0]

    def measured(values: Float[np.ndarray, " pairs"]) -> Accuracy:
        return accuracy_of(values, groups=validation.groups, seed=seed)

    return HeldOut(
        accuracy=measured(margins),
        loss=mean_loss(margins),
        longer_wins=measured(longer),
        shorter_wins=measured(-longer),
        length_only=measured(fitted),
        prefers_longer=float(0.5 + 0.5 * agreed.mean()) if agreed.size else None,
    )


def fit_length(train: PairSet) -> tuple[float, float]:
    """Coefficients of log characters and log words alone; InvalidInputError for under two pairs."""
    characters, words = fit_bradley_terry(_length_differences(train), ridge=LENGTH_RIDGE)
    return float(characters), float(words)


def require_disjoint(train: PairSet, validation: PairSet) -> None:
    """InvalidInputError where a pair, in either order, is both fitted on and measured on."""
    seen = {(pair.prompt, frozenset((pair.chosen, pair.rejected))) for pair in train.pairs}
    for index, pair in enumerate(validation.pairs):
        if (pair.prompt, frozenset((pair.chosen, pair.rejected))) in seen:
            raise InvalidInputError(
                f"Pair {index + 1} of the validation pairs {validation.source!r} is among the "
                f"training pairs {train.source!r} too; take it out of one of them."
            )


def _length_differences(pairs: PairSet) -> SparseRows:
    return sp.csr_matrix(_log_lengths(pairs.chosen) - _log_lengths(pairs.rejected))


def _log_lengths(answers: Sequence[str]) -> Float[np.ndarray, "answers 2"]:
    words = np.array([len(words_of(answer)) for answer in answers])
    return np.log1p(np.stack([_characters(answers), words], axis=1))


def _characters(answers: Sequence[str]) -> Float[np.ndarray, " answers"]:
    return np.array([len(answer) for answer in answers], dtype=np.float64)
