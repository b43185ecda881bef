"""Stage 2: coefficients fitted to the policy itself, with its normalisers.

Stage 1 predicts a comparison from the tilts alone, as if the soup needed no normalising. Stage 2
uses the soup's own log-ratio

    G(y) = sum_t [ tilt_lambda(s_t, a_t) - log Z_lambda(s_t) ],
    dG / d lambda_k = sum_t [ tilt_k(s_t, a_t) - E_{soup(. | s_t)} tilt_k(s_t, .) ],

and margins `gain * beta * (G(first) - G(second))`. It removes the ceiling that reward space puts on
stage 1, from about a hundred comparisons on; below that it can hurt. The loss is not convex: start
from stage 1, and keep the result only if comparisons that were held out become no less likely
(`gate`).

Source: ours, an extension of Spectral Souping, arXiv 2605.20408.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit, logsumexp

from palate.core.errors import InvalidInputError
from palate.core.types import Belief
from palate.soup.pool import Coefficients, require_coefficients

MAX_STEPS = 500


@dataclass(frozen=True, eq=False)
class States:
    """The states that compared answers passed through, each once.

    For a language model the vocabulary axis may be cut to the reference's most probable tokens;
    normalisers are then those of the cut soup.

    Attributes:
        reference: `[states, vocab]`, normalised log-probabilities.
        tilts: `[states, vocab, experts]`, `log p_k - log p_0`, finite; zero where forbidden.
    """

    reference: Float[ndarray, "states vocab"]
    tilts: Float[ndarray, "states vocab experts"]

    def __post_init__(self) -> None:
        """Refuse shapes that disagree and tilts that are not finite."""
        if self.tilts.ndim != 3 or self.tilts.shape[:2] != self.reference.shape:
            raise InvalidInputError(
                f"Tilts of shape {self.tilts.shape} do not fit a reference of shape "
                f"{self.reference.shape}; give [states, vocab, experts]."
            )
        if not np.all(np.isfinite(self.tilts)) or np.any(np.isnan(self.reference)):
            raise InvalidInputError("The states hold a tilt that is not finite; clip tilts first.")


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Pairs of answers, and which was preferred.

    Attributes:
        features: `[comparisons, experts]`, summed tilts of the first answer minus the second's
            (not multiplied by beta).
        visits: `[comparisons, states]`, how often the first answer passed a state minus how often
            the second did; sparse.
        labels: `[comparisons]`, 1 first preferred, 0 second, 0.5 a tie.
        states: The states that `visits` speaks of.
    """

    features: Float[ndarray, "comparisons experts"]
    visits: csr_array
    labels: Float[ndarray, " comparisons"]
    states: States

    def __post_init__(self) -> None:
        """Refuse shapes that disagree and labels out of range."""
        wanted = (len(self.labels), len(self.states.reference))
        n_experts = self.states.tilts.shape[2]
        found = cast(tuple[int, int], self.visits.shape)  # scipy leaves it untyped
        if found != wanted or self.features.shape != (len(self.labels), n_experts):
            raise InvalidInputError(
                f"Features {self.features.shape} and visits {found} do not fit "
                f"{wanted[0]} labels, {wanted[1]} states and {n_experts} experts."
            )
        is_good = (self.labels >= 0) & (self.labels <= 1)
        if not np.all(is_good) or not np.all(np.isfinite(self.features)):
            raise InvalidInputError("A label lies outside [0, 1], or a feature is not finite.")

    def part(self, kept: ndarray) -> "Comparisons":
        """Only the comparisons with these indices or where the mask is true."""
        index = np.arange(len(self.labels))[kept]
        return Comparisons(
            self.features[index], self.visits[index], self.labels[index], self.states
        )


@dataclass(frozen=True)
class Margin:
    """How comparisons follow from the log-ratio.

    Attributes:
        beta: Price of one nat of KL: turns log-ratios into rewards.
        gain: How sharply labels follow rewards.
        is_normalised: Subtract the normalisers (stage 2); otherwise tilts alone (stage 1).
    """

    beta: float
    gain: float = 1.0
    is_normalised: bool = True


def margins(
    coefficients: Coefficients, comparisons: Comparisons, *, margin: Margin
) -> tuple[Float[ndarray, " comparisons"], Float[ndarray, "comparisons experts"]]:
    """Margins `[comparisons]` and their derivatives `[comparisons, experts]`.

    Raises:
        InvalidCoefficientsError: not one finite coefficient per expert.
    """
    weighted = require_coefficients(coefficients, n_experts=comparisons.features.shape[1])
    scale = margin.gain * margin.beta
    slopes = comparisons.features
    values = slopes @ weighted
    if margin.is_normalised:
        log_normaliser, means = soup_moments(weighted, comparisons.states)
        values = values - comparisons.visits @ log_normaliser
        slopes = slopes - comparisons.visits @ means
    return scale * values, scale * slopes


def soup_moments(
    coefficients: Float[ndarray, " experts"], states: States
) -> tuple[Float[ndarray, " states"], Float[ndarray, "states experts"]]:
    """`log Z_lambda(s)` and `E_soup[tilt_k(s, .)]` for every state."""
    scores = states.reference + states.tilts @ coefficients
    log_normaliser = np.asarray(logsumexp(scores, axis=1))
    chances = np.exp(scores - log_normaliser[:, None])
    return log_normaliser, np.einsum("sv,svk->sk", chances, states.tilts)


def normalised_loss(
    coefficients: Float[ndarray, " experts"],
    comparisons: Comparisons,
    *,
    prior: Belief,
    margin: Margin,
    discounts: Float[ndarray, " comparisons"] | None = None,
) -> tuple[float, Float[ndarray, " experts"]]:
    """Negative log posterior in nats, and its gradient `[experts]`.

    Args:
        coefficients: `[experts]`.
        comparisons: What the user said.
        prior: Normal prior of the coefficients.
        margin: Beta, gain, and whether normalisers count.
        discounts: `[comparisons]` in [0, 1]; older feedback may count less.

    Raises:
        InvalidCoefficientsError: lengths disagree.
    """
    counted = np.ones(len(comparisons.labels)) if discounts is None else discounts
    values, slopes = margins(coefficients, comparisons, margin=margin)
    labels = comparisons.labels
    misses = labels * np.logaddexp(0, -values) + (1 - labels) * np.logaddexp(0, values)
    pull = np.linalg.solve(prior.covariance, coefficients - prior.mean)
    loss = float(counted @ misses + 0.5 * (coefficients - prior.mean) @ pull)
    return loss, slopes.T @ (counted * (expit(values) - labels)) + pull


def fit_normalised(
    comparisons: Comparisons,
    *,
    start: Coefficients,
    prior: Belief,
    margin: Margin,
    discounts: Float[ndarray, " comparisons"] | None = None,
) -> Float[ndarray, " experts"]:
    """Coefficients that minimise `normalised_loss`, from a warm start.

    A local minimum: the loss never ends above where it started.

    Args:
        comparisons: What the user said; none gives the prior mean back.
        start: `[experts]`, the stage-1 mode.
        prior: Normal prior of the coefficients.
        margin: Beta, gain, and whether normalisers count.
        discounts: `[comparisons]` in [0, 1].

    Raises:
        InvalidCoefficientsError: lengths disagree.
    """
    first = require_coefficients(start, n_experts=comparisons.features.shape[1])

    def loss(coefficients: Float[ndarray, " experts"]) -> tuple[float, ndarray]:
        return normalised_loss(
            coefficients, comparisons, prior=prior, margin=margin, discounts=discounts
        )

    found = minimize(
        loss, first, jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS, "ftol": 1e-12}
    )
    return np.asarray(found.x) if found.fun <= loss(first)[0] else first


def log_likelihood(
    coefficients: Coefficients, comparisons: Comparisons, *, margin: Margin
) -> float:
    """Mean log-probability of the labels, in nats; the higher the better."""
    values, _ = margins(coefficients, comparisons, margin=margin)
    labels = comparisons.labels
    return float(
        -np.mean(labels * np.logaddexp(0, -values) + (1 - labels) * np.logaddexp(0, values))
    )


@dataclass(frozen=True, eq=False)
class Fold:
    """Both stages fitted without some comparisons, and those comparisons.

    Attributes:
        first: `[experts]`, of stage 1.
        second: `[experts]`, of stage 2.
        held_out: Comparisons that neither was fitted to.
    """

    first: Float[ndarray, " experts"]
    second: Float[ndarray, " experts"]
    held_out: Comparisons


@dataclass(frozen=True, eq=False)
class Gate:
    """Which stage to use, and why.

    Attributes:
        is_second: Whether stage 2 is to be used.
        first_log_likelihood: Of held-out labels under stage 1, nats per comparison.
        second_log_likelihood: Under stage 2.
        n: Held-out comparisons.
    """

    is_second: bool
    first_log_likelihood: float
    second_log_likelihood: float
    n: int


def fold_masks(n_comparisons: int, *, n_folds: int = 5) -> list[Bool[ndarray, " comparisons"]]:
    """Masks of the held-out comparisons, one per fold: every `n_folds`-th, each held out once."""
    index = np.arange(n_comparisons)
    return [index % n_folds == fold for fold in range(min(n_folds, n_comparisons))]


def gate(folds: Sequence[Fold], *, margin: Margin) -> Gate:
    """Whether held-out labels are no less likely under stage 2 than under stage 1.

    Both are judged as the policies they would be served as, with normalisers.

    Args:
        folds: At least one; five that hold out every comparison once are far safer than one.
        margin: Beta and gain.

    Raises:
        InvalidInputError: nothing was held out.
    """
    counts = [len(fold.held_out.labels) for fold in folds]
    if not sum(counts):
        raise InvalidInputError("Nothing was held out to judge stage 2 by; keep stage 1 instead.")
    served = Margin(margin.beta, margin.gain, is_normalised=True)
    before, after = (
        sum(
            n * log_likelihood(found, fold.held_out, margin=served)
            for n, fold, found in zip(counts, folds, stage, strict=True)
            if n
        )
        / sum(counts)
        for stage in ([fold.first for fold in folds], [fold.second for fold in folds])
    )
    return Gate(after >= before, before, after, sum(counts))
