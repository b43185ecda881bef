"""Do users' comparisons say more than everybody's? Personal vectors against the population's.

Comparisons are predicted from the difference of two answers' features. In each fold of prompts the
population's normal prior is fitted to all users' other comparisons (`fit_population`), a user's
vector to that user's own, with this prior. Folds are by prompt: no prompt is on both sides, so what
is predicted are answers to prompts that nobody's fit has seen.

Source: hierarchical logistic regression by empirical Bayes, as in `palate.preferences.population`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.preferences.bradley_terry import fit_batch
from palate.preferences.gaussian_posterior import average_fits
from palate.preferences.population import fit_population

N_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Comparisons:
    """All users' comparisons, one after the other."""

    features: Float[ndarray, "comparisons features"]  # the first answer's minus the second's
    labels: Float[ndarray, " comparisons"]  # 1 the first is preferred, 0 the second, 0.5 a tie
    users: Int[ndarray, " comparisons"]  # numbers from 0
    prompts: Int[ndarray, " comparisons"]  # numbers; those of one number are in one fold

    def __post_init__(self) -> None:
        """Refuse arrays that disagree and numbers that are not finite."""
        n = len(self.labels)
        if any(len(part) != n for part in (self.features, self.users, self.prompts)) or not n:
            raise InvalidInputError(
                f"There are {len(self.features)} features, {n} labels, {len(self.users)} users and "
                f"{len(self.prompts)} prompts; give one of each for at least one comparison."
            )
        if not np.all(np.isfinite(self.features)):
            raise InvalidInputError("A feature of a comparison is not finite; check the rewards.")

    @property
    def n_users(self) -> int:
        """Number of users."""
        return int(self.users.max()) + 1

    def padded(
        self, is_used: Bool[ndarray, " comparisons"]
    ) -> tuple[
        Float[ndarray, "users comparisons features"],
        Float[ndarray, "users comparisons"],
        Float[ndarray, "users comparisons"],
    ]:
        """Features, labels and discounts of some comparisons, by user."""
        rows = [np.flatnonzero(is_used & (self.users == user)) for user in range(self.n_users)]
        width = max(1, *map(len, rows))
        x = np.zeros((len(rows), width, self.features.shape[1]))
        y, counted = np.full((len(rows), width), 0.5), np.zeros((len(rows), width))
        for user, own in enumerate(rows):
            x[user, : len(own)] = self.features[own]
            y[user, : len(own)], counted[user, : len(own)] = self.labels[own], 1.0
        return x, y, counted


def population_of(comparisons: Comparisons, is_used: Bool[ndarray, " comparisons"]) -> Belief:
    """The population's prior from some comparisons; standard normal where one user has any."""
    x, y, counted = comparisons.padded(is_used)
    if (counted.sum(axis=1) > 0).sum() < 2:
        return Belief(np.zeros(x.shape[2]), np.eye(x.shape[2]))
    return fit_population(x, y, discounts=counted)


def held_out_margins(
    comparisons: Comparisons, *, generator: np.random.Generator, n_folds: int = N_FOLDS
) -> tuple[Float[ndarray, " comparisons"], Float[ndarray, " comparisons"]]:
    """Margins of every comparison from fits without its prompt: personal, and the population's.

    Raises:
        InvalidInputError: all comparisons are of one prompt.
    """
    numbers = np.unique(comparisons.prompts)
    if len(numbers) < 2:
        raise InvalidInputError(
            "All comparisons are of one prompt, so nothing can be held out; give at least two."
        )
    folds = generator.permutation(len(numbers)) % min(n_folds, len(numbers))
    fold_of = folds[np.searchsorted(numbers, comparisons.prompts)]
    personal, common = np.zeros(len(fold_of)), np.zeros(len(fold_of))
    for fold in range(folds.max() + 1):
        is_out = fold_of == fold
        prior = population_of(comparisons, ~is_out)
        x, y, counted = comparisons.padded(~is_out)
        means = fit_batch(x, y, prior=prior, discounts=counted).mean
        out = comparisons.features[is_out]
        personal[is_out] = (out * means[comparisons.users[is_out]]).sum(axis=1)
        common[is_out] = out @ prior.mean
    return personal, common


def accuracy_by_user(
    margins: Float[ndarray, " comparisons"], comparisons: Comparisons
) -> Float[ndarray, " users"]:
    """Share of each user's comparisons whose winner has the larger margin; ties are left out.

    A margin of zero counts as half right; NaN for a user with ties alone.
    """
    sides = np.sign(comparisons.labels - 0.5)
    right = np.where(sides == 0, np.nan, 0.5 + 0.5 * np.sign(margins) * sides)
    rows = [
        right[(comparisons.users == user) & (sides != 0)] for user in range(comparisons.n_users)
    ]
    return np.array([own.mean() if len(own) else np.nan for own in rows])


def user_vectors(
    comparisons: Comparisons,
) -> tuple[Belief, Float[ndarray, "users features"], Float[ndarray, "users features"]]:
    """The population from all comparisons, and every user's posterior mean and deviation."""
    every = np.ones(len(comparisons.labels), dtype=bool)
    prior = population_of(comparisons, every)
    x, y, counted = comparisons.padded(every)
    means, covariances, *_ = average_fits(x, y, prior=prior, discounts=counted)
    return prior, means, np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
