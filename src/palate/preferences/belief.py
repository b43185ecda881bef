"""A user's belief, learned item by item, and always the same as if learned anew from the log.

A `Learner` knows the prior and the settings; the belief of a user is a function of the user's
feedback in order. The first 25 items and then every 25th (or every item, with adaptive drift) are
refitted from the log, with the user's own gain; between refits an item costs O(features^2).
`rebuild` goes the same way from the log alone, so a stored belief can be checked, or thrown away.

How each kind of feedback enters:

- a comparison: the label of the difference of two answers (ties and probabilities included);
- thumbs: a comparison with a typical answer, whose features are zero; give features less those of
  what is usually shown. A user who only ever gives thumbs up drifts towards what was shown,
  and held by the prior;
- a rating: a number on the user's own scale (`preferences.rating_scale`), compared with the mean of
  the earlier ratings of its group; the first rating of a group changes nothing;
- a copied or regenerated answer: thumbs up or down whose log-likelihood counts for a fraction.

Source: Spectral Souping, arXiv 2605.20408, online coefficients; refit every 25 comparisons.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.core.files import hash_bytes
from palate.core.types import Belief, Feedback
from palate.preferences.bradley_terry import fit_batch, update
from palate.preferences.drift import change_discounts, forget, steady_discounts
from palate.preferences.gaussian_posterior import average_fit
from palate.preferences.noise import average_over_gain, fit_gain
from palate.preferences.rating_scale import rating_scale
from palate.preferences.settings import LearningSettings

ALGORITHM = 3  # to be raised when the same feedback leads to other beliefs
NEGLIGIBLE = 1e-9  # discounts below it leave a rating out
WEAK = ("copy", "regenerate")  # kinds of feedback that count for a fraction
LARGEST = 1e6  # margin that one feature can add to; beyond it every verdict is certain


@dataclass(frozen=True, eq=False)
class Learner:
    """Fits beliefs to feedback; InvalidInputError where features are not as long as the prior."""

    prior: Belief  # about a user never seen before
    settings: LearningSettings = field(default_factory=LearningSettings)

    @cached_property
    def digest(self) -> str:
        """Changes with the prior and the settings, and so with any belief they lead to."""
        parts = [self.prior.mean, self.prior.covariance]
        arrays = [np.ascontiguousarray(part, dtype="<f8").tobytes() for part in parts]
        return hash_bytes(*arrays, f"{ALGORITHM} {self.settings.model_dump_json()}".encode())

    @cached_property
    def start(self) -> Belief:
        """The belief about a user without feedback."""
        return replace(self.prior, n_observations=0, gain=self.settings.gain)

    def learn(
        self, belief: Belief, feedback: Feedback, *, earlier: Callable[[], Sequence[Feedback]]
    ) -> Belief:
        """The belief after one more item.

        `earlier` gives all earlier items, oldest first; it is called only where they are needed.
        """
        (feature,) = self._features([feedback])
        count = belief.n_observations + 1
        if count == self._last_refit(count) or feedback.kind in WEAK:
            return self.refit([*earlier(), feedback])
        if self.settings.drift == "steady":
            belief = forget(belief, prior=self.prior, factor=self.settings.forgetting)
        if feedback.kind != "rating":
            return update(belief, feature, feedback.label, gain=belief.gain)
        *before, feedback = self._scaled([*earlier(), feedback])
        group = [item for item in before if item.kind == "rating" and item.group == feedback.group]
        return self._learn_rating(belief, feedback, group, discounts=np.ones(len(group) + 1))

    def rebuild(self, history: Sequence[Feedback]) -> Belief:
        """The belief after the whole history, from nothing but the history."""
        last_refit = self._last_refit(len(history))
        belief = self.refit(history[:last_refit]) if last_refit else self.start
        for position in range(last_refit, len(history)):
            belief = self.learn(
                belief, history[position], earlier=lambda end=position: history[:end]
            )
        return belief

    def refit(self, history: Sequence[Feedback]) -> Belief:
        """Exact mode of all comparisons, with all ratings in the prior, drift and own gain."""
        x, y, prior, discounts = self._comparisons(history)
        gain = self.settings.gain
        if self.settings.is_gain_fitted and len(y) >= self.settings.fit_gain_from:
            gain = fit_gain(x, y, prior=prior, gain=gain, discounts=discounts)
        modes = fit_batch(x[None], y[None], prior=prior, gain=gain, discounts=discounts[None])
        is_converged = bool(modes.is_converged[0])
        return Belief(modes.mean[0], modes.covariance[0], len(history), gain, is_converged)

    def posterior(self, history: Sequence[Feedback]) -> Belief:
        """Posterior mean and covariance after the whole history: for intervals that cover.

        A belief is a mode with its curvature, quick to keep up to date but too sure of itself;
        this is the normal distribution closest to the posterior. Where users have gains of their
        own, it is averaged over all gains, from the first comparison on. Ratings enter with the
        population's gain, and a history with drift as its discounts have it.
        """
        x, y, prior, discounts = self._comparisons(history)
        average = average_over_gain if self.settings.is_gain_fitted else average_fit
        return average(x, y, prior=prior, gain=self.settings.gain, discounts=discounts)

    def _comparisons(
        self, history: Sequence[Feedback]
    ) -> tuple[
        Float[np.ndarray, "comparisons features"],
        Float[np.ndarray, " comparisons"],
        Belief,
        Float[np.ndarray, " comparisons"],
    ]:
        """Features and labels, a prior that has taken in the ratings, and discounts."""
        is_rating = np.array([item.kind == "rating" for item in history], dtype=bool)
        pairs = [item for item in history if item.kind != "rating"]
        features = self._features(pairs)
        labels = np.array([item.label for item in pairs])
        discounts = np.ones(len(history))
        if self.settings.drift == "steady":
            discounts = steady_discounts(len(history), factor=self.settings.forgetting)
        if self.settings.drift == "adaptive":
            gain, hazard = self.settings.gain, self.settings.hazard
            unchanged = change_discounts(
                features, labels, prior=self.prior, gain=gain, hazard=hazard
            )
            discounts = _spread_over_ratings(unchanged, is_rating)
        counted = np.where([item.kind in WEAK for item in pairs], self.settings.weak_weight, 1.0)
        prior = self._with_ratings(self._scaled(history), discounts)
        return features, labels, prior, discounts[~is_rating] * counted

    def _scaled(self, history: Sequence[Feedback]) -> Sequence[Feedback]:
        """The history with its ratings as margins."""
        rated = [item for item in history if item.kind == "rating"]
        if not self.settings.is_rating_scaled or len(rated) < 2:
            return history
        scale = rating_scale(
            [item.label for item in rated],
            gain_features=self.settings.gain * self._features(rated),
            groups=[item.group for item in rated],
            prior=self.start,
            noise=self.settings.rating_noise,
        )
        return [
            replace(item, label=item.label / scale) if item.kind == "rating" else item
            for item in history
        ]

    def _last_refit(self, count: int) -> int:
        """The number of items at the last refit, when there are `count`."""
        every = self.settings.refit_every
        if self.settings.drift == "adaptive" or count <= every:
            return count
        return count - count % every

    def _with_ratings(
        self, history: Sequence[Feedback], discounts: Float[np.ndarray, " items"]
    ) -> Belief:
        belief = self.start
        groups: dict[str, list[int]] = {}
        for position, item in enumerate(history):
            if item.kind == "rating":
                earlier = groups.setdefault(item.group, [])
                group, own = [history[index] for index in earlier], discounts[[*earlier, position]]
                belief = self._learn_rating(belief, item, group, discounts=own)
                earlier.append(position)
        return belief

    def _learn_rating(
        self,
        belief: Belief,
        item: Feedback,
        group: Sequence[Feedback],
        *,
        discounts: Float[np.ndarray, " group_and_item"],
    ) -> Belief:
        """One rating less the mean of the earlier ones of its group; equals ridge regression."""
        earlier, own = float(discounts[:-1].sum()), float(discounts[-1])
        if earlier < NEGLIGIBLE or own < NEGLIGIBLE:
            return replace(belief, n_observations=belief.n_observations + 1)
        share = discounts[:-1] / earlier
        own_feature, *others = self._features([item, *group])
        feature = self.settings.gain * (own_feature - share @ np.array(others))
        value, *values = np.clip([one.label for one in [item, *group]], -LARGEST, LARGEST)
        value = float(value - share @ np.array(values))
        direction = belief.covariance @ feature
        variance = self.settings.rating_noise**2 * (1.0 / own + 1.0 / earlier)
        total = float(feature @ direction) + variance
        left = np.eye(len(feature)) - np.outer(direction, feature) / total
        return replace(
            belief,
            mean=belief.mean + direction * ((value - float(feature @ belief.mean)) / total),
            # Joseph's form, which rounding cannot make indefinite
            covariance=left @ belief.covariance @ left.T
            + np.outer(direction, direction) * (variance / total**2),
            n_observations=belief.n_observations + 1,
        )

    def _features(self, items: Sequence[Feedback]) -> Float[np.ndarray, "items features"]:
        for item in items:
            if len(item.features) != len(self.prior.mean):
                raise InvalidInputError(
                    f"The feedback {item.key!r} of {item.user!r} has {len(item.features)} features,"
                    f" but beliefs here have {len(self.prior.mean)}."
                )
        rows = np.array([item.features for item in items]).reshape(-1, len(self.prior.mean))
        return np.clip(rows, -LARGEST / self.settings.gain, LARGEST / self.settings.gain)


def _spread_over_ratings(
    discounts: Float[np.ndarray, " comparisons"], is_rating: np.ndarray
) -> Float[np.ndarray, " items"]:
    """Each rating gets the discount of the next comparison; after the last one, 1."""
    every = np.ones(len(is_rating))
    every[~is_rating] = discounts
    upcoming = 1.0
    for position in range(len(is_rating) - 1, -1, -1):
        if is_rating[position]:
            every[position] = upcoming
        upcoming = float(every[position])
    return every
