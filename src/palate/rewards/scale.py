"""One scale for every reward: raw scores to [0, 1] by statistics fitted once on base rollouts.

Raw scores of different reward models are in different units. A scale is fitted on answers of the
frozen base model, stored with the reward, and never fitted again: rewards before and after
training are then comparable. Two kinds:

- `logistic`: `sigmoid((raw - centre) / spread)`; answers of the base have about mean 1/2, and
  better answers still differ;
- `clip`: straight between two quantiles of the base, flat outside: easy to read, blind beyond.
"""

from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.files import hash_bytes
from palate.core.settings import Settings

ScaleKind = Literal["logistic", "clip"]
TOLERANCE = 1e-6  # how far outside [0, 1] rounding may take a reward
CLIP_QUANTILES = (0.05, 0.95)

Texts = Float[np.ndarray, " texts"]


class FittedScale(Settings):
    """What every scale stores."""

    version: Literal[1] = 1  # version of the formula
    n_texts: int  # number of base rollouts it was fitted on
    data_hash: str  # hash of their raw scores


class LogisticScale(FittedScale):
    """`sigmoid((raw - centre) / spread)`; monotone, never flat."""

    kind: Literal["logistic"] = "logistic"
    centre: float  # raw score that becomes 1/2
    spread: float = Field(gt=0)  # raw units per unit of log-odds; positive

    def apply(self, raw: Texts) -> Texts:
        """Rewards in [0, 1], `[texts]`."""
        return expit((raw - self.centre) / self.spread)


class ClipScale(FittedScale):
    """`(raw - low) / (high - low)`, cut to [0, 1]."""

    kind: Literal["clip"] = "clip"
    low: float
    high: float

    def apply(self, raw: Texts) -> Texts:
        """Rewards in [0, 1], `[texts]`."""
        return np.clip((raw - self.low) / (self.high - self.low), 0.0, 1.0)


Scale = Annotated[LogisticScale | ClipScale, Field(discriminator="kind")]


def fit_scale(raw: Texts, *, kind: ScaleKind = "logistic") -> LogisticScale | ClipScale:
    """The scale of these base rollouts' raw scores, `[texts]`, at least two different ones.

    A logistic distribution with their mean and standard deviation would become uniform under
    `logistic`; `clip` uses their 5 % and 95 % quantiles.

    Raises:
        InvalidInputError: a score is not finite, or the scores do not differ.
    """
    scores = np.asarray(raw, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise InvalidInputError(
            f"The raw score of text {bad[0]} of the base rollouts is {scores[bad[0]]}; only finite "
            "scores can be calibrated."
        )
    identity = {"n_texts": len(scores), "data_hash": hash_bytes(scores.tobytes())}
    if kind == "clip":
        low, high = np.quantile(scores, CLIP_QUANTILES)
        _require_spread(high - low, scores)
        return ClipScale.checked({"low": low, "high": high, **identity}, source="clip scale")
    deviation = float(scores.std())
    _require_spread(deviation - 1e-12 * max(1.0, float(np.abs(scores).max())), scores)
    content = {"centre": float(scores.mean()), "spread": deviation * np.sqrt(3) / np.pi, **identity}
    return LogisticScale.checked(content, source="logistic scale")


def require_rewards(values: Texts, *, objective: str) -> Texts:
    """The rewards, with rounding beyond 0 and 1 cut off.

    Raises:
        InvalidInputError: a reward is not finite or lies outside [0, 1] by more than 1e-6.
    """
    rewards = np.asarray(values, dtype=np.float64)
    bad = ~((rewards >= -TOLERANCE) & (rewards <= 1 + TOLERANCE))  # true for NaN as well
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise InvalidInputError(
            f"The reward {objective!r} of text {index} is {rewards[index]}, but rewards lie in "
            "[0, 1]; calibrate the reward on base rollouts."
        )
    return np.clip(rewards, 0.0, 1.0)


def _require_spread(spread: float, scores: Texts) -> None:
    if not spread > 0:
        raise InvalidInputError(
            f"The {len(scores)} base rollouts have no spread in raw score, so there is no scale to "
            "fit; give more and different rollouts."
        )
