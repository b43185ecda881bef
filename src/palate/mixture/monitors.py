"""Signs that training a controller went wrong, each with a threshold and a sentence.

    collapse        entropy of the mean shares below 20 % of log |S|, though several were wanted
    static          entropy of the mean shares minus mean entropy of the shares below 0.02 nats
    uninformative   fewer than 5 % of the tokens on which an expert differs from the mixture by
                    more than 0.1 nats
    dead            a wanted expert with a mean share below 0.01
    sacrificed      an objective's win probability more than 0.05 below that of the uniform mixture
    drift           length or share of ended answers off by more than 20 % of the uniform mixture's
    density         log-probabilities as sampled and as recomputed differ by more than 1e-3

Low entropy per token is no sign: without a KL price the best controller is one-hot everywhere (M9).

Source: mope.md 14.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from palate.core.templates import render_sentences
from palate.mixture.pooling import LOWEST_LOG_PROB
from palate.mixture.rollout import Sample

DISAGREE_NATS = 0.1
THRESHOLDS = {
    "collapse_fraction": 0.2,
    "static_nats": 0.02,
    "disagree_fraction": 0.05,
    "dead_share": 0.01,
    "sacrifice": 0.05,
    "drift_fraction": 0.2,
    "density_nats": 1e-3,
}
SATURATION = 0.02  # win probabilities nearer than this to zero or one carry little signal


@dataclass(frozen=True)
class Summary:
    """Answers of a mixture, in numbers."""

    n_answers: int
    reward: float  # mean
    wins: tuple[float | None, ...]  # mean by expert, over the answers that wanted it
    mean_shares: tuple[float | None, ...]  # the same over the tokens of these answers
    entropy_fraction: float  # of the mean shares, over log |S|; mean over combinations
    mean_entropy: float  # of the shares, nats per token
    adaptivity: float  # entropy of the mean shares minus mean entropy, nats; zero is static
    switch_rate: float  # share of tokens whose largest share is another expert's than before
    disagree_fraction: float  # share of tokens on which an expert differs from the mixture
    ended_fraction: float  # share of answers that ended by themselves
    tokens: float  # mean length
    unsaturated_fraction: float  # share of wanted win probabilities in [0.02, 0.98]
    n_floored: int  # log-probabilities of experts that were lifted to the lowest one

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain data."""
        return {**asdict(self), "wins": list(self.wins), "mean_shares": list(self.mean_shares)}


def summarise(samples: Sequence[Sample]) -> Summary:
    """The summary of at least one answer."""
    strengths = np.array([s.request.strengths for s in samples])
    wins = np.array([s.wins for s in samples])
    shares = np.concatenate([s.shares for s in samples])
    lengths = np.array([len(s.shares) for s in samples])
    by_token = np.repeat(strengths, lengths, axis=0)
    fraction, adaptivity = _by_combination(shares, by_token)
    firsts = np.cumsum(lengths) - lengths
    turns = np.flatnonzero(~np.isin(np.arange(len(shares)), firsts))
    top = shares.argmax(axis=1)
    log_probs = np.concatenate([s.expert_log_probs for s in samples])
    return Summary(
        n_answers=len(samples),
        reward=float(np.mean([s.reward for s in samples])),
        wins=_mean_where(wins, strengths > 0),
        mean_shares=_mean_where(shares, by_token > 0),
        entropy_fraction=fraction,
        mean_entropy=float(_entropy(shares).mean()),
        adaptivity=adaptivity,
        switch_rate=float(np.mean(top[turns] != top[turns - 1])) if len(turns) else 0.0,
        disagree_fraction=float(_disagree(shares, log_probs, by_token > 0).mean()),
        ended_fraction=float(np.mean([s.completion.finish == "stop" for s in samples])),
        tokens=float(lengths.mean()),
        unsaturated_fraction=float(np.mean(np.abs(wins[strengths > 0] - 0.5) <= 0.5 - SATURATION)),
        n_floored=int(np.sum((log_probs < LOWEST_LOG_PROB) & (by_token > 0))),
    )


def warnings_of(
    summary: Summary, *, experts: Sequence[str], uniform: Summary, density_gap: float
) -> list[str]:
    """One sentence per threshold that is crossed; none when all is well."""
    return render_sentences(
        Path(__file__).parent / "templates/monitors.txt.jinja",
        {},
        summary=summary,
        uniform=uniform,
        experts=list(zip(experts, summary.mean_shares, summary.wins, uniform.wins, strict=True)),
        density_gap=density_gap,
        **THRESHOLDS,
    )


def _by_combination(
    shares: Float[np.ndarray, "tokens experts"], strengths: Float[np.ndarray, "tokens experts"]
) -> tuple[float, float]:
    """Entropy of mean shares over its largest, and adaptivity, averaged over combinations."""
    fractions: list[float] = []
    adaptivities: list[float] = []
    for combination in np.unique(strengths, axis=0):
        n_wanted = int((combination > 0).sum())
        if n_wanted < 2:
            continue
        own = shares[(strengths == combination).all(axis=1)]
        of_mean = float(_entropy(own.mean(axis=0)[None])[0])
        fractions.append(of_mean / np.log(n_wanted))
        adaptivities.append(of_mean - float(_entropy(own).mean()))
    if not fractions:
        return 1.0, 0.0
    return float(np.mean(fractions)), float(np.mean(adaptivities))


def _disagree(
    shares: Float[np.ndarray, "tokens experts"],
    log_probs: Float[np.ndarray, "tokens experts"],
    wanted: np.ndarray,
) -> np.ndarray:
    mixed = np.log((shares * np.exp(log_probs) * wanted).sum(axis=1, keepdims=True))
    return (np.where(wanted, np.abs(log_probs - mixed), 0.0)).max(axis=1) > DISAGREE_NATS


def _entropy(probs: Float[np.ndarray, "rows entries"]) -> Float[np.ndarray, " rows"]:
    return -(probs * np.log(np.where(probs > 0, probs, 1.0))).sum(axis=1)


def _mean_where(values: np.ndarray, is_counted: np.ndarray) -> tuple[float | None, ...]:
    return tuple(
        float(column[counted].mean()) if counted.any() else None
        for column, counted in zip(values.T, is_counted.T, strict=True)
    )
