"""The divergence of futures of a language model, learned: a value head on the base's states.

A soup that pools token by token leaves out that experts disagree about what comes after. With `T_k`
the sum of expert k's tilts over the rest of an answer,

    F(s) = log E_{y ~ base(. | s)} exp(sum_k lambda_k T_k(y)),        D(s) = -beta F(s),

the optimum for the blended reward is `base(a | s) exp(tilt_lambda(s, a) + F(s + a) - F(s))`, S3.
The head makes F linear in features of the state, such as the hidden state after the final norm, by
a regression with a logarithmic link on the base's answers,

    minimise  mean_s [ exp(F(s)) - exp(lambda . T) F(s) ] + ridge / 2 |theta|^2          (head)

which is exact without a ridge where F is linear in the features. To decode with F takes its value
after every candidate token. Coefficients are *matched* instead: those whose plain soup is closest,

    minimise over c  mean_s KL(optimum(. | s) || soup_c(. | s)),                         (matched)

with the optimum's moments from the tokens that the base took: for `w = exp(tilt_lambda) / Z` and
`r = exp(F(s + a) - F(s) + log Z)`,

    E_optimum tilt = E_soup tilt + E_base [ w (r - 1) (tilt - E_soup tilt) ].

Source: ours, an extension of Spectral Souping, arXiv 2605.20408 (methods S3 and 13.4).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import minimize

from palate.core.errors import InvalidInputError
from palate.soup.states import ByExpert, States, soup_moments

N_FOLDS = 5
RIDGES = (0.01, 0.1, 1.0)  # for features of variance one
MAX_STEPS = 300
_LARGEST = 30.0  # nats; beyond, exp is of no use


@dataclass(frozen=True, eq=False)
class Paths:
    """Answers of the base, token by token, one answer after the other."""

    # standardised features of the state before each token; a constant is added
    features: Float[ndarray, "tokens features"]
    tilts: Float[ndarray, "tokens experts"]  # of the token that was taken
    answers: Int[ndarray, " tokens"]  # to which answer it belongs, ascending
    shares: Float[ndarray, " tokens"]  # weight of each row; equal where the base sampled them
    states: States  # next-token distributions before each token

    def __post_init__(self) -> None:
        """Refuse shapes that disagree and fewer than two answers."""
        n = len(self.answers)
        rows = (self.features, self.tilts, self.shares, self.states.reference)
        if n == 0 or any(len(row) != n for row in rows) or len(np.unique(self.answers)) < 2:
            raise InvalidInputError(
                f"Rows of {[len(row) for row in rows]} do not fit {n} tokens of at least two "
                "answers; give one row a token."
            )

    @property
    def design(self) -> Float[ndarray, "tokens columns"]:
        """The features after a constant."""
        return np.column_stack([np.ones(len(self.features)), self.features])

    def futures(self, coefficients: ByExpert) -> Float[ndarray, " tokens"]:
        """`sum_k lambda_k T_k`: tilts of this and all later tokens of the answer, nats."""
        own = self.tilts @ coefficients
        sums = np.cumsum(own[::-1])[::-1]
        ends = np.flatnonzero(np.append(np.diff(self.answers) != 0, True))
        after = np.append(sums, 0.0)[ends + 1]
        return sums - np.repeat(after, np.diff(np.append(-1, ends)))


def fit_head(
    paths: Paths, coefficients: ByExpert, *, ridge: float, rows: Int[ndarray, " rows"] | None = None
) -> Float[ndarray, " columns"]:
    """Parameters of F by the module's regression, the constant's first; on some rows only."""
    at = np.arange(len(paths.answers)) if rows is None else rows
    design, shares = paths.design[at], paths.shares[at] / paths.shares[at].sum()
    totals = shares * np.exp(np.minimum(paths.futures(coefficients)[at], _LARGEST))
    start = np.zeros(design.shape[1])
    start[0] = np.log(totals.sum())
    pull = np.full(len(start), ridge)
    pull[0] = 0.0

    def loss(theta: ndarray) -> tuple[float, ndarray]:
        values = design @ theta
        level = shares * np.exp(np.minimum(values, _LARGEST))
        total = level.sum() - totals @ values + 0.5 * pull @ theta**2
        return float(total), design.T @ (level - totals) + pull * theta

    options = {"maxiter": MAX_STEPS, "ftol": 1e-15, "gtol": 1e-10}
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x)


def chosen_ridge(paths: Paths, coefficients: ByExpert) -> float | None:
    """The ridge whose head predicts answers that were left out best.

    `None` where it is not better than a constant by two standard errors over answers.
    """
    _, answer_of = np.unique(paths.answers, return_inverse=True)
    totals = np.exp(np.minimum(paths.futures(coefficients), _LARGEST))
    losses = np.zeros((1 + len(RIDGES), len(answer_of)))  # a constant's first
    for fold in range(min(N_FOLDS, int(answer_of.max()) + 1)):
        used = np.flatnonzero(answer_of % N_FOLDS != fold)
        out = np.flatnonzero(answer_of % N_FOLDS == fold)
        mean = float(np.average(totals[used], weights=paths.shares[used]))
        heads = [fit_head(paths, coefficients, ridge=ridge, rows=used) for ridge in RIDGES]
        values = np.stack(
            [np.full(len(out), np.log(mean)), *(paths.design[out] @ h for h in heads)]
        )
        values = np.minimum(values, _LARGEST)
        losses[:, out] = paths.shares[out] * (np.exp(values) - totals[out] * values)
    best = 1 + int(losses[1:].sum(axis=1).argmin())
    gains = np.bincount(answer_of, weights=losses[0] - losses[best])
    is_better = gains.sum() > 2.0 * np.sqrt(len(gains)) * gains.std()
    return RIDGES[best - 1] if is_better else None


def matched_coefficients(
    paths: Paths, coefficients: ByExpert, values: Float[ndarray, " tokens"]
) -> ByExpert:
    """The coefficients whose plain soup is closest to the optimum; `values` are F of the states."""
    shares = paths.shares / paths.shares.sum()
    log_normaliser, means = soup_moments(coefficients, paths.states)
    is_last = np.append(np.diff(paths.answers) != 0, True)
    after = np.where(is_last, 0.0, np.append(values[1:], 0.0))
    own = np.exp(np.minimum(paths.tilts @ coefficients - log_normaliser, _LARGEST))
    futures = np.exp(np.clip(after - values + log_normaliser, -_LARGEST, _LARGEST))
    shift = (shares * own * (futures - 1.0)) @ (paths.tilts - means)
    target = shares @ means + shift

    def loss(c: ndarray) -> tuple[float, ndarray]:
        total, moments = soup_moments(c, paths.states)
        return float(shares @ total - c @ target), shares @ moments - target

    options = {"maxiter": MAX_STEPS, "ftol": 1e-15, "gtol": 1e-10}
    best = minimize(loss, coefficients, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(best.x)


def corrected_coefficients(paths: Paths, coefficients: ByExpert) -> ByExpert:
    """Matched by a head fitted to these coefficients; they themselves where it predicts nothing."""
    ridge = chosen_ridge(paths, coefficients)
    if ridge is None:
        return coefficients
    values = paths.design @ fit_head(paths, coefficients, ridge=ridge)
    return matched_coefficients(paths, coefficients, values)
