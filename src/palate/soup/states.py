"""States: next-token distributions of the reference, the experts' tilts there, and their soups.

A *state* is a prompt with the first tokens of an answer; a *tilt* is an expert's log-probability of
the next token less the reference's. With coefficients lambda the soup at a state is

    soup(a) = reference(a) exp(sum_k lambda_k tilt_k(a)) / Z_lambda.

Source: Spectral Souping, arXiv 2605.20408, explicit rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from palate.core.errors import InvalidCoefficientsError, InvalidInputError

ByExpert = Float[np.ndarray, " experts"]
Coefficients = ByExpert | Sequence[float]


@dataclass(frozen=True, eq=False)
class States:
    """States with all experts' tilts.

    For a language model the vocabulary axis may be cut to the reference's most probable tokens;
    normalisers are then those of the cut soup.
    """

    reference: Float[np.ndarray, "states vocab"]  # normalised log-probabilities
    tilts: Float[np.ndarray, "states vocab experts"]  # `log p_k - log p_0`; zero where forbidden

    def __post_init__(self) -> None:
        """Refuse shapes that disagree and tilts that are not finite."""
        if self.tilts.ndim != 3 or self.tilts.shape[:2] != self.reference.shape:
            raise InvalidInputError(
                f"Tilts of shape {self.tilts.shape} do not fit a reference of shape "
                f"{self.reference.shape}; give [states, vocab, experts]."
            )
        if not np.all(np.isfinite(self.tilts)) or np.any(np.isnan(self.reference)):
            raise InvalidInputError("The states hold a tilt that is not finite; clip tilts first.")


def soup_moments(
    coefficients: ByExpert, states: States
) -> tuple[Float[np.ndarray, " states"], Float[np.ndarray, "states experts"]]:
    """`log Z_lambda(s)` and `E_soup[tilt_k(s, .)]` for every state."""
    scores = states.reference + states.tilts @ coefficients
    log_normaliser = np.asarray(logsumexp(scores, axis=1))
    chances = np.exp(scores - log_normaliser[:, None])
    return log_normaliser, np.einsum("sv,svk->sk", chances, states.tilts)


def log_softmax(logits: Float[np.ndarray, "*states vocab"]) -> Float[np.ndarray, "*states vocab"]:
    """Normalised logarithms, `[..., vocab]`; minus infinity stays.

    Raises:
        InvalidInputError: a logit is NaN or plus infinity, or a state has no allowed token.
    """
    values = np.asarray(logits, dtype=np.float64)
    if np.any(np.isnan(values)) or np.any(values == np.inf):
        raise InvalidInputError("The logits hold NaN or plus infinity; only minus infinity may be.")
    totals = np.asarray(logsumexp(values, axis=-1, keepdims=True))
    if not np.all(np.isfinite(totals)):
        raise InvalidInputError("A state has no allowed token left; loosen the mask or the vetoes.")
    return values - totals


def require_coefficients(coefficients: Coefficients, *, n_experts: int) -> ByExpert:
    """The coefficients as one finite number per expert; otherwise InvalidCoefficientsError."""
    values = np.asarray(coefficients, dtype=np.float64)
    if values.shape != (n_experts,) or not np.all(np.isfinite(values)):
        raise InvalidCoefficientsError(
            f"The coefficients {values.tolist()} do not fit; give one finite number for each of "
            f"the {n_experts} experts."
        )
    return values


def kl_divergence(
    first: Float[np.ndarray, "*states vocab"], second: Float[np.ndarray, "*states vocab"]
) -> Float[np.ndarray, "*states"]:
    """`KL(first || second)` in nats, per state, of normalised log-probabilities."""
    probabilities = np.exp(first)
    with np.errstate(invalid="ignore"):
        terms = np.where(probabilities > 0, probabilities * (first - second), 0.0)
    return np.asarray(terms.sum(axis=-1))


def entropy(log_probs: Float[np.ndarray, "*states vocab"]) -> Float[np.ndarray, "*states"]:
    """Entropy in nats, per state, of normalised log-probabilities."""
    probabilities = np.exp(log_probs)
    terms = np.where(probabilities > 0, probabilities * np.maximum(log_probs, -1e300), 0.0)
    return np.asarray(-terms.sum(axis=-1))
