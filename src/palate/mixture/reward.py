"""The training reward: how likely an answer is to beat a reference answer, on average.

    q_i = sigmoid(r_i(x, y) - r_i(x, y_ref))        for each wanted objective
    R   = sum_i w_i q_i                              w uniform over them, or any strengths

An answer that does not end within the limit earns zero.

Source:
    MoPE, arXiv 2407.04181 (Bradley-Terry win probabilities); mope.md 5.1.

Deviations from the paper:
    1. Which model writes the reference answer is unknown; ours is one greedy answer of the base
       prompted with the preference, per prompt and combination.
    2. Strengths other than uniform are ours, and so is the raw reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.plan import reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.protocol import Engine
from palate.mixture.wording import MixtureRequest, Wording


class LogOdds(Protocol):
    """Raw Bradley-Terry scores of several objectives, one for each expert of the bank."""

    def log_odds(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Float[ndarray, "texts experts"]:
        """`[texts, experts]`, natural log-odds; only differences for one prompt mean something."""
        ...


class References:
    """Reference answers: one greedy answer of the base per prompt and preference, cached."""

    def __init__(self, engine: Engine, wording: Wording, *, max_tokens: int) -> None:
        """Answer with this engine, at most so many tokens."""
        self._engine = engine
        self._wording = wording
        self._sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        self._answers: dict[MixtureRequest, str] = {}

    def answers(self, requests: Sequence[MixtureRequest]) -> list[str]:
        """One per request; missing ones are generated together."""
        missing = list(dict.fromkeys(item for item in requests if item not in self._answers))
        plan = reference_plan(n_experts=len(self._wording.instructions))
        completions = self._engine.generate(
            [Request(self._wording.full_text(item), plan, self._sampling) for item in missing]
        )
        self._answers |= {a: c.text for a, c in zip(missing, completions, strict=True)}
        return [self._answers[item] for item in requests]


@dataclass(frozen=True, eq=False)
class Judge:
    """Turns answers into win probabilities against the reference answers, and into rewards."""

    scores: LogOdds
    references: References
    temperature: float = 1.0  # log-odds are divided by it, against saturation
    is_raw: bool = False  # rewards are log-odds, not win probabilities

    def margins(
        self, requests: Sequence[MixtureRequest], answers: Sequence[str]
    ) -> Float[ndarray, "answers experts"]:
        """Log-odds of beating the reference answers, tempered.

        Raises:
            InvalidInputError: a score is not finite.
        """
        prompts = [item.text for item in requests]
        own = self.scores.log_odds(prompts, answers)
        other = self.scores.log_odds(prompts, self.references.answers(requests))
        margins = (own - other) / self.temperature
        if not np.all(np.isfinite(margins)):
            raise InvalidInputError("A score is not finite; check the reward models.")
        return margins

    def rewards(
        self,
        margins: Float[ndarray, "answers experts"],
        strengths: Float[ndarray, "answers experts"],
        *,
        is_ended: Bool[ndarray, " answers"],
    ) -> Float[ndarray, " answers"]:
        """One reward per answer; higher is better."""
        if self.is_raw:
            return raw_reward(margins, strengths, is_ended=is_ended)
        return combined_reward(win_probabilities(margins), strengths, is_ended=is_ended)


def win_probabilities(
    margins: Float[ndarray, "answers objectives"],
) -> Float[ndarray, "answers objectives"]:
    """`q_i`: one half where the answer is as good as the reference answer."""
    return np.asarray(expit(margins), dtype=np.float64)


def combined_reward(
    wins: Float[ndarray, "answers objectives"],
    strengths: Float[ndarray, "answers objectives"],
    *,
    is_ended: Bool[ndarray, " answers"],
) -> Float[ndarray, " answers"]:
    """`R`, in [0, 1]: the strengths' average of the win probabilities; zero if cut.

    `wins` are in [0, 1], ignored where the strength is zero; each row of strengths is on the
    simplex.
    """
    total = np.where(strengths > 0, wins * strengths, 0.0).sum(axis=1)
    return np.where(is_ended, total, 0.0)


def raw_reward(
    margins: Float[ndarray, "answers objectives"],
    strengths: Float[ndarray, "answers objectives"],
    *,
    is_ended: Bool[ndarray, " answers"],
) -> Float[ndarray, " answers"]:
    """`1/2 + margin / 4`, averaged with the strengths: a win probability that is not squashed.

    It is the tangent of the sigmoid at one half, so steps of learning mean the same near there. An
    answer that was cut earns what the worst one does. For the arguments see `combined_reward`;
    `margins` are log-odds against the reference answers.
    """
    total = 0.5 + 0.25 * np.where(strengths > 0, margins * strengths, 0.0).sum(axis=1)
    return np.where(is_ended, total, total.min())
