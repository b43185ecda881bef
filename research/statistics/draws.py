"""Made-up comparisons whose truth is known: users and prompts that lean, noise of some kind.

Every draw has the mean it is said to have, so that an interval either holds it or not. Nothing here
knows how intervals are made.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import ndtri

Outcome = Literal["normal", "skewed", "ties"]
SPREAD = 1.2  # of the logarithms of unequal sizes about their middle: the largest has 11 smallest
LEAST_SHARE = 0.3  # of the prompts that the least asked user has, in unequal designs


@dataclass(frozen=True)
class Shape:
    """Who is asked what, and how much depends on whom and on what.

    Attributes:
        n_users: Clusters of the first kind.
        n_prompts: Of the second kind; 0: there is none, and users have answers of their own.
        n_each: Answers per user and prompt, or per user on average.
        is_equal: Whether all users have as many answers.
        outcome: Of which kind the noise and the leanings are: normal; exponential, with skewness
            2; or normal and then -1, 0 or 1, two thirds of them 0.
        user: Standard deviation of what a user adds, in those of the noise.
        prompt: Of what a prompt adds.
    """

    n_users: int
    n_prompts: int = 0
    n_each: int = 1
    is_equal: bool = True
    outcome: Outcome = "normal"
    user: float = 0.0
    prompt: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Design:
    """The place of every observation.

    Attributes:
        users: `[observations]`, from zero.
        prompts: `[observations]`, from zero; each its own where the shape has no prompts.
    """

    users: Int[ndarray, " observations"]
    prompts: Int[ndarray, " observations"]


def design_of(shape: Shape) -> Design:
    """The same design in every repeat; it has nothing to do with the outcomes."""
    if not shape.n_prompts:
        sizes = np.full(shape.n_users, shape.n_each)
        if not shape.is_equal:
            pull = np.exp(np.linspace(-SPREAD, SPREAD, shape.n_users))
            sizes = np.maximum(1, np.round(shape.n_each * pull / pull.mean())).astype(int)
        users = np.repeat(np.arange(shape.n_users), sizes)
        return Design(users, np.arange(len(users)))
    users, prompts, _ = (
        index.ravel() for index in np.indices((shape.n_users, shape.n_prompts, shape.n_each))
    )
    if shape.is_equal:
        return Design(users, prompts)
    shares = np.linspace(LEAST_SHARE, 1.0, shape.n_users)
    kept = (prompts + users) % shape.n_prompts < np.ceil(shares * shape.n_prompts)[users]
    return Design(users[kept], prompts[kept])


def differences_of(
    shape: Shape, design: Design, generator: np.random.Generator
) -> Float[ndarray, " observations"]:
    """Differences between two ways of which neither is better: their mean is zero."""
    draw: Callable[[int], ndarray] = generator.standard_normal
    if shape.outcome == "skewed":
        draw = _skewed(generator)
    values = _leaning(shape, design, draw) + draw(len(design.users))
    if shape.outcome == "ties":
        scale = np.sqrt(1 + shape.user**2 + shape.prompt**2)
        return np.sign(values) * (np.abs(values) > scale)
    return values


def verdicts_of(
    shape: Shape, design: Design, generator: np.random.Generator, *, rate: float
) -> Float[ndarray, " observations"]:
    """Wins (1) and losses (0) whose chance is `rate`, over users and prompts not yet drawn."""
    noise = generator.standard_normal(len(design.users))
    values = _leaning(shape, design, generator.standard_normal) + noise
    scale = np.sqrt(1 + shape.user**2 + shape.prompt**2)
    return (values < ndtri(rate) * scale).astype(float)


def _leaning(shape: Shape, design: Design, draw: Callable[[int], ndarray]) -> ndarray:
    n_prompts = int(design.prompts.max()) + 1
    users = shape.user * draw(shape.n_users)[design.users] if shape.user else 0.0
    prompts = shape.prompt * draw(n_prompts)[design.prompts] if shape.prompt else 0.0
    return np.asarray(users + prompts)


def _skewed(generator: np.random.Generator) -> Callable[[int], ndarray]:
    return lambda n: generator.standard_exponential(n) - 1.0
