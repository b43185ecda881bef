"""What to watch while a controller learns and serves, each with a threshold and a sentence.

    collapse        entropy of the mean shares below 20 % of log |S|, though several were wanted
    static          entropy of the mean shares minus mean entropy of the shares below 0.02 nats
    uninformative   fewer than 5 % of the tokens on which an expert differs from the mixture by
                    more than 0.1 nats
    dead            a wanted expert with a mean share below 0.01
    sacrificed      an objective's win probability more than 0.05 below that of the uniform mixture
    drift           length or share of ended answers off by more than 20 % of the uniform mixture's
    peaked, flat    entropy of the mixture over that of the reference below 0.5 or above 1.2
    density         log-probabilities as drawn and as recomputed differ by more than 1e-3

Low entropy per token is not among them: without a KL price the best controller is one-hot in every
state (M9).

Source:
    methods mope 14.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.metrics.diversity import pairwise_kl
from palate.mixture.pooling import LOWEST_LOG_PROB
from palate.mixture.reward import unsaturated_fraction
from palate.mixture.rollout import Sample

COLLAPSE_FRACTION = 0.2
STATIC_NATS = 0.02
DISAGREE_NATS = 0.1
DISAGREE_FRACTION = 0.05
DEAD_SHARE = 0.01
SACRIFICE = 0.05
DRIFT_FRACTION = 0.2
PEAKED, FLAT = 0.5, 1.2
DENSITY_NATS = 1e-3


@dataclass(frozen=True)
class Summary:
    """Answers under control, in numbers.

    Attributes:
        n_answers: How many.
        reward: Mean.
        wins: Mean win probability by expert, over the answers that wanted it; `None` if none did.
        mean_shares: Mean share by expert, over the tokens of answers that wanted it.
        entropy_fraction: Entropy of the mean shares over log |S|, averaged over combinations of at
            least two experts; one where there are none.
        mean_entropy: Mean entropy of the shares, nats per token.
        adaptivity: Entropy of the mean shares minus mean entropy, nats; zero is static.
        switch_rate: Share of tokens whose largest share belongs to another expert than before.
        disagree_fraction: Share of tokens on which a wanted expert differs from the mixture by more
            than 0.1 nats.
        ended_fraction: Share of answers that ended by themselves.
        tokens: Mean length.
        unsaturated_fraction: Share of wanted win probabilities in [0.02, 0.98].
        n_floored: Log-probabilities of experts that were lifted to the floor of -50.
    """

    n_answers: int
    reward: float
    wins: tuple[float | None, ...]
    mean_shares: tuple[float | None, ...]
    entropy_fraction: float
    mean_entropy: float
    adaptivity: float
    switch_rate: float
    disagree_fraction: float
    ended_fraction: float
    tokens: float
    unsaturated_fraction: float
    n_floored: int

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain data."""
        return {**asdict(self), "wins": list(self.wins), "mean_shares": list(self.mean_shares)}


@dataclass(frozen=True)
class Spread:
    """How the experts' whole distributions relate along some answers.

    Attributes:
        entropy_ratio: Mean entropy of the mixture over that of the reference.
        diversity: Mean KL between two experts, nats per token.
    """

    entropy_ratio: float
    diversity: float


def summarise(samples: Sequence[Sample]) -> Summary:
    """The summary of at least one answer."""
    strengths = np.array([s.asked.strengths for s in samples])
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
        unsaturated_fraction=unsaturated_fraction(wins, strengths),
        n_floored=int(np.sum((log_probs < LOWEST_LOG_PROB) & (by_token > 0))),
    )


def spread_of(
    experts: Float[ndarray, "experts tokens vocab"],
    shares: Float[ndarray, "tokens experts"],
    reference: Float[ndarray, "tokens vocab"],
) -> Spread:
    """Entropies and diversity along one answer, from whole log-probabilities.

    Args:
        experts: At least two.
        shares: Of these experts, per token.
        reference: Log-probabilities of the base without experts.
    """
    mixed = np.einsum("te,etv->tv", shares, np.exp(experts))
    entropies = [_entropy(table).mean() for table in (mixed, np.exp(reference))]
    return Spread(float(entropies[0] / entropies[1]), pairwise_kl(experts))


def warnings_of(
    summary: Summary,
    *,
    experts: Sequence[str],
    uniform: Summary | None = None,
    spread: Spread | None = None,
    density_gap: float = 0.0,
) -> list[str]:
    """One sentence per threshold that is crossed; none when all is well.

    Args:
        summary: Of the controller that is watched.
        experts: Names, in bank order.
        uniform: The same of the uniform mixture, for what is relative to it.
        spread: From whole distributions, if measured.
        density_gap: From training, nats.
    """
    found = [words for holds, words in _own_signs(summary) if holds]
    found += [
        f"Expert {name!r} is dead: its mean share where it was wanted is {share:.3f}; this "
        "preference is not served."
        for name, share in zip(experts, summary.mean_shares, strict=True)
        if share is not None and share < DEAD_SHARE
    ]
    if uniform is not None:
        found += _relative_signs(summary, uniform, experts)
    if spread is not None and not PEAKED <= spread.entropy_ratio <= FLAT:
        word = "peaked" if spread.entropy_ratio < PEAKED else "flat"
        found.append(
            f"The mixture is too {word}: its entropy is {spread.entropy_ratio:.2f} of the "
            "reference's; set a temperature per expert or calibrate them."
        )
    if density_gap > DENSITY_NATS:
        found.append(
            f"Answers' log-probabilities as drawn and as recomputed differ by {density_gap:.1e} "
            "nats; masks, temperature or cache are wrong."
        )
    return found


def _own_signs(summary: Summary) -> Sequence[tuple[bool, str]]:
    return (
        (
            summary.entropy_fraction < COLLAPSE_FRACTION,
            f"The controller collapsed: the entropy of its mean shares is "
            f"{summary.entropy_fraction:.0%} of the largest; check the rewards by objective, set a "
            "price on KL, and compare with the favoured expert alone.",
        ),
        (
            summary.adaptivity < STATIC_NATS,
            f"The controller is static: what it reads changes its shares by "
            f"{summary.adaptivity:.3f} nats only; check rates and input.",
        ),
        (
            summary.disagree_fraction < DISAGREE_FRACTION,
            f"The experts agree on all but {summary.disagree_fraction:.1%} of the tokens; there is "
            "little to control.",
        ),
    )


def _relative_signs(summary: Summary, uniform: Summary, experts: Sequence[str]) -> list[str]:
    pairs = zip(experts, summary.wins, uniform.wins, strict=True)
    found = [
        f"The objective of expert {name!r} is sacrificed: its win probability is {own:.3f}, under "
        f"the uniform mixture {other:.3f}; raise its strength or give it a floor."
        for name, own, other in pairs
        if own is not None and other is not None and own < other - SACRIFICE
    ]
    measures: Mapping[str, tuple[float, float]] = {
        "mean length": (summary.tokens, uniform.tokens),
        "share of ended answers": (summary.ended_fraction, uniform.ended_fraction),
    }
    for name, (own, other) in measures.items():
        if abs(own - other) > DRIFT_FRACTION * other:
            found.append(
                f"The {name} drifted from {other:.2f} under the uniform mixture to {own:.2f}; look "
                "for a reward that pays for it."
            )
    return found


def _by_combination(
    shares: Float[ndarray, "tokens experts"], strengths: Float[ndarray, "tokens experts"]
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
    shares: Float[ndarray, "tokens experts"],
    log_probs: Float[ndarray, "tokens experts"],
    wanted: ndarray,
) -> ndarray:
    mixed = np.log((shares * np.exp(log_probs) * wanted).sum(axis=1, keepdims=True))
    return (np.where(wanted, np.abs(log_probs - mixed), 0.0)).max(axis=1) > DISAGREE_NATS


def _entropy(probs: Float[ndarray, "rows entries"]) -> Float[ndarray, " rows"]:
    return -(probs * np.log(np.where(probs > 0, probs, 1.0))).sum(axis=1)


def _mean_where(values: ndarray, is_counted: ndarray) -> tuple[float | None, ...]:
    return tuple(
        float(column[counted].mean()) if counted.any() else None
        for column, counted in zip(values.T, is_counted.T, strict=True)
    )
