"""A low-rank preference head: what a user's few verdicts say of texts that nobody has judged.

A verdict of user p on text j is `offset(x_j) + loading(x_j) . z_p + noise`: `x_j` are the text's
features, such as its embedding or that of prompt and answer; offset and loadings are linear in them
and shared by all users; `z ~ normal(0, I)` is a user's own, a few numbers, and a new user's prior.

Three steps. `fit_factors` finds factors and offsets of the judged texts, whatever they say. Ridge
regressions predict offsets and loadings from features, each text counted by how well its own are
known. Last, the loadings are multiplied by one share in [0, 1]: what a text says of who likes it is
less than what its own votes say, and a share of one makes users out of noise.

The ridge of the loadings and the share are chosen inside, by the users' own verdicts. Each verdict
is predicted with its text left out of the regression (in closed form) and itself left out of the
user's coefficients (a rank-one downdate), both less the user's means; the largest explained sum of
squares is taken. Where it is less than one standard error over texts, nothing personal is shown and
the share is 0: the head is the population's.

Source: regression-based latent factors, Agarwal & Chen 2009; collaborative topic regression, Wang &
Blei 2011; leaving one out in a ridge regression, Golub, Heath & Wahba 1979; the one-standard-error
rule, Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3.

Deviations from Agarwal & Chen:

1. Factors are fitted once without features, and not again with the regression as their prior.
2. Features of users are not used: they are known by their verdicts alone.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from research.preferences.factors import VoteFactors, fit_coefficients, fit_factors

RIDGES = np.geomspace(0.03, 3000.0, 11)  # for features of Euclidean length about one
LEAST_NOISE = 0.05  # variance of an offset or loading that text can at best explain


@dataclass(frozen=True, eq=False)
class PreferenceHead:
    """What users' verdicts on some texts say of all texts.

    Attributes:
        judged: The judged texts, by their own verdicts.
        left_out: The judged texts as text alone shows them, each from a fit without it.
        share: Of the loadings that is served; 0 where nothing personal is shown.
        noise: Variance of a verdict on a text that nobody has judged.
    """

    judged: VoteFactors
    left_out: VoteFactors
    share: float
    noise: float
    _offset: "Line"
    _loadings: "Line"

    def items(self, features: Float[ndarray, "texts features"]) -> VoteFactors:
        """Texts that nobody has judged, for `predict` and `fit_coefficients`."""
        offset, loadings = self._offset(features)[:, 0], self._loadings(features)
        return _as_items(offset, self.share * loadings, noise=self.noise)


def fit_head(
    votes: Float[ndarray, "users texts"],
    features: Float[ndarray, "texts features"],
    *,
    rank: int = 6,
    generator: np.random.Generator,
) -> PreferenceHead:
    """The head of a table of verdicts with gaps and its texts' features.

    Args:
        votes: `[users, texts]`, higher is more favourable; NaN where there is none.
        features: `[texts, features]`.
        rank: Largest number of factors.
        generator: Samples the first loadings.

    Raises:
        InvalidInputError: there are no votes, fewer than 3 texts, shapes disagree, a feature is not
            finite, or the rank is not positive.
    """
    if votes.ndim != 2 or features.ndim != 2 or not 3 <= votes.shape[1] == len(features):
        raise InvalidInputError(
            f"Votes {votes.shape} and features {features.shape} disagree; give one row of features "
            "for each of at least 3 texts."
        )
    if not np.isfinite(features).all():
        raise InvalidInputError("A feature of a text is not finite; leave such texts out.")
    return head_of(fit_factors(votes, rank=rank, generator=generator), votes, features)


def head_of(
    judged: VoteFactors,
    votes: Float[ndarray, "users texts"],
    features: Float[ndarray, "texts features"],
) -> PreferenceHead:
    """The head on factors that were fitted to these votes; see `fit_head`."""
    rank = judged.loadings.shape[1]
    variances = judged.noise[:, None] * np.diagonal(judged.spread, axis1=1, axis2=2)
    lines = [
        Regression(features, 1.0 / (LEAST_NOISE + own))
        for own in (variances[:, rank], variances[:, :rank].mean(axis=1))
    ]
    offset = judged.offset[:, None]
    losses = [lines[0].loss(offset, ridge) for ridge in RIDGES]
    offset_ridge = float(RIDGES[int(np.argmin(losses))])
    ridge, share = _chosen(judged, votes, lines[1])
    offsets = lines[0].left_out(offset, offset_ridge)[:, 0]
    loadings = share * lines[1].left_out(judged.loadings, ridge)
    means = fit_coefficients(judged, votes)[0]
    noise = float(np.nanmean((votes - offsets - means @ loadings.T) ** 2))
    return PreferenceHead(
        judged,
        _as_items(offsets, loadings, noise=noise),
        share,
        noise,
        lines[0].line(offset, offset_ridge),
        lines[1].line(judged.loadings, ridge),
    )


def _chosen(
    judged: VoteFactors, votes: Float[ndarray, "users texts"], regression: "Regression"
) -> tuple[float, float]:
    """Ridge of the loadings and the share of them that the votes support."""
    seen = np.isfinite(votes)
    means, covariances = fit_coefficients(judged, votes)
    wanted = _less_own_mean(votes - judged.offset, seen)
    error = np.where(seen, votes - judged.predict(means), 0.0)
    moved = np.einsum("urk,jk->ujr", covariances, judged.loadings)  # by an error in that vote
    leverage = np.einsum("ujr,jr->uj", moved, judged.loadings)
    own = error / np.maximum(judged.noise - leverage, LEAST_NOISE * judged.noise)
    best, ridge, share = 0.0, float(RIDGES[-1]), 0.0
    for candidate in RIDGES:
        loadings = regression.left_out(judged.loadings, float(candidate))
        without = own * np.einsum("ujr,jr->uj", moved, loadings)
        expected = _less_own_mean(means @ loadings.T - without, seen)
        squares = float((expected**2).sum())
        scale = min(max(float((expected * wanted).sum()) / max(squares, 1e-12), 0.0), 1.0)
        explained = (2 * scale * expected * wanted - (scale * expected) ** 2).sum(axis=0)
        total, deviation = float(explained.sum()), float(np.sqrt((explained**2).sum()))
        if total > max(best, deviation):
            best, ridge, share = total, float(candidate), scale
    return ridge, share


def _less_own_mean(
    values: Float[ndarray, "users texts"], seen: ndarray
) -> Float[ndarray, "users texts"]:
    """Values where there is a vote, less their mean by user; zero elsewhere."""
    filled = np.where(seen, values, 0.0)
    means = filled.sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    return np.where(seen, filled - means[:, None], 0.0)


def _as_items(
    offset: Float[ndarray, " texts"], loadings: Float[ndarray, "texts factors"], *, noise: float
) -> VoteFactors:
    n_texts, rank = loadings.shape
    spread = np.zeros((n_texts, rank + 1, rank + 1))
    return VoteFactors(offset, loadings, spread, np.full(n_texts, noise), np.ones(rank))


@dataclass(frozen=True, eq=False)
class Line:
    """A linear function of features."""

    centre: Float[ndarray, " features"]
    slopes: Float[ndarray, "features targets"]
    at_centre: Float[ndarray, " targets"]

    def __call__(self, features: Float[ndarray, "texts features"]) -> ndarray:
        """Values, `[texts, targets]`."""
        return self.at_centre + (features - self.centre) @ self.slopes


class Regression:
    """Weighted ridge regressions on one set of features, with a free intercept."""

    def __init__(self, features: Float[ndarray, "texts features"], weights: ndarray) -> None:
        """Decompose the features once, texts weighted."""
        self.weights = weights / weights.mean()
        self.roots = np.sqrt(self.weights)[:, None]
        self.centre = np.average(features, axis=0, weights=self.weights)
        self.left, self.sizes, self.right = np.linalg.svd(
            self.roots * (features - self.centre), full_matrices=False
        )

    def _parts(self, values: Float[ndarray, "texts targets"]) -> tuple[ndarray, ndarray]:
        mean = np.average(values, axis=0, weights=self.weights)
        return mean, self.roots * (values - mean)

    def line(self, values: Float[ndarray, "texts targets"], ridge: float) -> Line:
        """The fit to all texts."""
        mean, scaled = self._parts(values)
        shrunk = self.sizes / (self.sizes**2 + ridge)
        return Line(self.centre, self.right.T @ (shrunk[:, None] * (self.left.T @ scaled)), mean)

    def left_out(
        self, values: Float[ndarray, "texts targets"], ridge: float
    ) -> Float[ndarray, "texts targets"]:
        """Each text's values by the fit to the others (`error / (1 - leverage)`)."""
        _, scaled = self._parts(values)
        kept = self.sizes**2 / (self.sizes**2 + ridge)
        error = scaled - self.left @ (kept[:, None] * (self.left.T @ scaled))
        leverage = self.weights / self.weights.sum() + (self.left**2 * kept).sum(axis=1)
        return values - error / np.maximum(1.0 - leverage, 1e-9)[:, None] / self.roots

    def loss(self, values: Float[ndarray, "texts targets"], ridge: float) -> float:
        """Mean squared error of texts left out."""
        error = (self.left_out(values, ridge) - values) ** 2
        return float(np.average(error[:, 0], weights=self.weights))
