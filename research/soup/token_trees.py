"""Yardstick B: small language models whose users, experts and optima are all known exactly.

A recurrent network with random parameters is the reference: five tokens, answers of five tokens.
An answer has four attributes, a user wants a signed unit vector of them, and experts are exactly
optimal for random such vectors. What a soup reaches of a user's possible gain can be computed to
the last digit, so estimators are compared without noise from training or sampling.

Its orderings carry over to larger models; its percentages do not.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import expit

from research.soup.trees import (
    Policy,
    answer_log_probs,
    answer_tokens,
    policy_from_logits,
)

N_HIDDEN = 8
VOCAB = 5
LENGTH = 5
N_ATTRIBUTES = 4
N_ANCHORS = 30
N_TRAINING = 200
N_USERS = 6
N_COMPARISONS = 300
BETA = 0.5
GAIN = 3.0  # of users' labels, known to the fits


@dataclass(frozen=True, eq=False)
class Yardstick:
    """One random world.

    Attributes:
        seed: What it was drawn from.
        reference: Policy of the base model.
        attributes: `[answers, attributes]`, mean zero and variance one under the reference.
        anchors: `[anchors, attributes]`, unit vectors that experts are optimal for.
        training: `[users, attributes]`, users a population prior may be fitted to.
        users: `[users, attributes]`, users it is measured on.
    """

    seed: int
    reference: Policy
    attributes: Float[ndarray, "answers attributes"]
    anchors: Float[ndarray, "anchors attributes"]
    training: Float[ndarray, "training attributes"]
    users: Float[ndarray, "users attributes"]


@dataclass(frozen=True, eq=False)
class Votes:
    """Comparisons of answers drawn from the reference.

    Attributes:
        first: `[comparisons]`, indices of the first answers.
        second: `[comparisons]`, of the second.
        labels: `[comparisons]`, 1 where the first was preferred, 0 where the second was.
    """

    first: Int[ndarray, " comparisons"]
    second: Int[ndarray, " comparisons"]
    labels: Float[ndarray, " comparisons"]


def yardstick(seed: int, *, n_training: int = N_TRAINING) -> Yardstick:
    """The world of a seed. The order of the draws is part of its definition.

    Args:
        seed: Any whole number; the recorded table uses 0 to 5.
        n_training: Users for the prior, drawn before those measured.
    """
    generator = np.random.default_rng(seed)
    W = generator.normal(size=(N_HIDDEN, N_HIDDEN)) / np.sqrt(N_HIDDEN) * 1.2
    U = generator.normal(size=(N_HIDDEN, VOCAB))
    E = generator.normal(size=(VOCAB, N_HIDDEN)) * 0.7
    hidden = generator.normal(size=N_HIDDEN)[None]
    F = generator.normal(size=(N_ATTRIBUTES, N_HIDDEN))
    C = generator.normal(size=(N_ATTRIBUTES, VOCAB))
    logits: list[Float[ndarray, "states vocab"]] = []
    for _ in range(LENGTH):
        logits.append(hidden @ E.T)
        hidden = np.tanh((hidden @ W.T)[:, None, :] + U.T).reshape(-1, N_HIDDEN)
    reference = policy_from_logits(logits)
    raw = np.tanh(hidden @ F.T) + C.T[answer_tokens(reference)].mean(axis=1)
    chances = np.exp(answer_log_probs(reference))
    centred = raw - chances @ raw
    return Yardstick(
        seed=seed,
        reference=reference,
        attributes=centred / np.sqrt(chances @ centred**2),
        anchors=_unit(generator.normal(size=(N_ANCHORS, N_ATTRIBUTES))),
        training=_unit(generator.normal(size=(n_training, N_ATTRIBUTES))),
        users=_unit(generator.normal(size=(N_USERS, N_ATTRIBUTES))),
    )


def votes(world: Yardstick, *, user: int) -> Votes:
    """What one of the users says of pairs of the reference's answers.

    The first is preferred with probability `sigmoid(GAIN * difference of returns)`.
    """
    generator = np.random.default_rng(1000 * world.seed + user)
    chances = np.exp(answer_log_probs(world.reference))
    chances = chances / chances.sum()
    first, second = (
        generator.choice(len(chances), size=N_COMPARISONS, p=chances) for _ in range(2)
    )
    returns = world.attributes @ world.users[user]
    chance = expit(GAIN * (returns[first] - returns[second]))
    return Votes(first, second, (generator.random(N_COMPARISONS) < chance).astype(float))


def _unit(rows: Float[ndarray, "rows attributes"]) -> Float[ndarray, "rows attributes"]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
