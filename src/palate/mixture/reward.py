"""The training reward: how likely an answer is to beat a reference answer, on average.

    q_i = sigmoid(r_i(x, y) - r_i(x, y_ref))        for each requested objective
    R   = sum_i w_i q_i                              w uniform over them, or the sliders' strengths

An answer that does not end within the limit earns zero.

Source:
    MoPE, arXiv 2407.04181 (Bradley-Terry win probabilities); methods mope 5.1.

Deviations from the paper:
    1. Which model writes the reference answer is unknown; ours is one greedy answer of the base
       that is told the preference, kept per prompt and combination.
    2. Strengths other than uniform are ours.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.special import expit

from palate.core.errors import InvalidInputError

SATURATION = 0.02  # win probabilities nearer than this to zero or one carry little signal


def win_probabilities(
    scores: Float[ndarray, "answers objectives"], reference: Float[ndarray, "answers objectives"]
) -> Float[ndarray, "answers objectives"]:
    """`sigmoid(score - reference)`, in log-odds units; one half where both are equal.

    Args:
        scores: `[answers, objectives]`, log-odds of Bradley-Terry models; only differences count.
        reference: The same of the reference answers to the same prompts.

    Raises:
        InvalidInputError: shapes differ, or a score is not finite.
    """
    if scores.shape != reference.shape:
        raise InvalidInputError(
            f"There are scores of shape {scores.shape} for answers and {reference.shape} for "
            "reference answers; score both on the same objectives."
        )
    if not (np.all(np.isfinite(scores)) and np.all(np.isfinite(reference))):
        raise InvalidInputError("A score is not finite; check the reward models.")
    return np.asarray(expit(scores - reference), dtype=np.float64)


def combined_reward(
    wins: Float[ndarray, "answers objectives"],
    strengths: Float[ndarray, "answers objectives"],
    *,
    is_ended: Bool[ndarray, " answers"],
) -> Float[ndarray, " answers"]:
    """`[answers]` in [0, 1]: the strengths' average of the win probabilities; zero if cut.

    Args:
        wins: `[answers, objectives]`, in [0, 1]; not read where the strength is zero.
        strengths: `[answers, objectives]`, each row on the simplex.
        is_ended: `[answers]`, whether the answer ended by itself.

    Raises:
        InvalidInputError: a win probability that counts is not a number in [0, 1], or strengths
            are off the simplex.
    """
    counted = strengths > 0
    if np.any(strengths < 0) or not np.allclose(strengths.sum(axis=1), 1.0, atol=1e-6):
        raise InvalidInputError("The strengths of an answer do not lie on the simplex.")
    if not np.all((wins[counted] >= 0) & (wins[counted] <= 1)):
        raise InvalidInputError(
            "A requested objective has no win probability in [0, 1]; give its reward model."
        )
    total = np.where(counted, wins * strengths, 0.0).sum(axis=1)
    return np.where(is_ended, total, 0.0)


def raw_reward(
    margins: Float[ndarray, "answers objectives"],
    strengths: Float[ndarray, "answers objectives"],
    *,
    is_ended: Bool[ndarray, " answers"],
) -> Float[ndarray, " answers"]:
    """`1/2 + margin / 4`, averaged with the strengths: a win probability that is not squashed.

    It is the tangent of the sigmoid at one half, so steps of learning mean the same near there. An
    answer that was cut earns what the worst one does.

    Args:
        margins: `[answers, objectives]`, log-odds against the reference answers.
        strengths: `[answers, objectives]`, each row on the simplex.
        is_ended: `[answers]`, whether the answer ended by itself.
    """
    total = 0.5 + 0.25 * np.where(strengths > 0, margins * strengths, 0.0).sum(axis=1)
    return np.where(is_ended, total, total.min())


def unsaturated_fraction(
    wins: Float[ndarray, "answers objectives"], strengths: Float[ndarray, "answers objectives"]
) -> float:
    """Share of requested win probabilities in [0.02, 0.98]: the ones that carry signal."""
    counted = wins[strengths > 0]
    return float(np.mean((counted >= SATURATION) & (counted <= 1 - SATURATION)))
