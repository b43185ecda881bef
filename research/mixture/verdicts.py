"""Who wins: gold rewards of two methods' answers to the same prompts, turned into win rates.

The rule: on each objective that the user wants, +1, 0 or -1 by the gold reward; both orders are
judged and must agree; the sum over the objectives decides, and a sum of zero is a tie. The headline
is wins among decided comparisons; ties as half and ties as not won stand beside it.

Source:
    methods mope 12 (the judge's rule of Personalized Soups, with gold rewards as the judge).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from palate.core.seeds import generator_for
from palate.metrics.intervals import Interval, bootstrap_interval
from palate.metrics.win_rates import TIE, WinRates, verdicts_from_both_orders, win_rates


@dataclass(frozen=True, eq=False)
class Compared:
    """What every comparison belongs to, and what was wanted there.

    Attributes:
        is_wanted: `[comparisons, objectives]`.
        prompt: `[comparisons]`, the prompt's number; the same in all seeds.
        user: `[comparisons]`, the user's number.
    """

    is_wanted: Bool[ndarray, "comparisons objectives"]
    prompt: Int[ndarray, " comparisons"]
    user: Int[ndarray, " comparisons"]


@dataclass(frozen=True)
class Average:
    """One method's win rate, averaged over its rivals.

    Attributes:
        ties_out: Mean over rivals of wins among decided comparisons.
        ties_half: The same with a tie counting one half.
    """

    ties_out: Interval
    ties_half: Interval

    def to_json(self) -> dict[str, Any]:
        """The two rates as plain data."""
        return {"ties_out": self.ties_out.to_json(), "ties_half": self.ties_half.to_json()}


def judged(
    first: Float[ndarray, "comparisons objectives"],
    second: Float[ndarray, "comparisons objectives"],
    is_wanted: Bool[ndarray, "comparisons objectives"],
) -> Float[ndarray, " comparisons"]:
    """1 where the first answer wins more wanted objectives than it loses, 0 where fewer, else 0.5.

    Args:
        first: Gold rewards of the answer that is shown first.
        second: Of the other.
        is_wanted: Which objectives count.

    Example:
        >>> gold = np.array([[0.5, 0.2, 0.9]]), np.array([[0.4, 0.1, 1.0]])
        >>> judged(*gold, np.ones((1, 3), dtype=bool)).tolist()
        [1.0]
    """
    total = np.where(is_wanted, np.sign(first - second), 0.0).sum(axis=1)
    return 0.5 * (1.0 + np.sign(total))


def verdicts(
    first: Float[ndarray, "comparisons objectives"],
    second: Float[ndarray, "comparisons objectives"],
    is_wanted: Bool[ndarray, "comparisons objectives"],
) -> Float[ndarray, " comparisons"]:
    """For the first method, judged in both orders; a disagreement between orders is a tie."""
    return verdicts_from_both_orders(
        judged(first, second, is_wanted), 1.0 - judged(second, first, is_wanted)
    )


def rates_of(won: Float[ndarray, " comparisons"], compared: Compared) -> WinRates:
    """Win rates with intervals over prompts and users, crossed."""
    return win_rates(
        won,
        clusters=compared.prompt,
        second_clusters=compared.user,
    )


def average_of(
    won: Mapping[str, Float[ndarray, " comparisons"]], compared: Compared, *names: str
) -> Average:
    """The mean of the win rates against several rivals, with one interval for the mean.

    A rate among decided comparisons is a ratio; its interval is that of its linear part, so that a
    prompt counts against all rivals together.
    """
    rows = np.stack(list(won.values()))
    decided = rows != TIE
    rates = np.array([row[kept].mean() for row, kept in zip(rows, decided, strict=True)])
    shares = decided.mean(axis=1, keepdims=True)
    linear = (np.where(decided, rows - rates[:, None], 0.0) / shares).mean(axis=0)

    def interval(values: Float[ndarray, " comparisons"], kind: str) -> Interval:
        return bootstrap_interval(
            values,
            generator=generator_for(0, "average", kind, *names),
            clusters=compared.prompt,
            second_clusters=compared.user,
        )

    return Average(interval(rates.mean() + linear, "decided"), interval(rows.mean(axis=0), "half"))


def wanted_mean(
    gold: Float[ndarray, "comparisons objectives"],
    is_wanted: Bool[ndarray, "comparisons objectives"],
) -> Float[ndarray, " comparisons"]:
    """The mean gold reward of what the user wants."""
    return np.where(is_wanted, gold, 0.0).sum(axis=1) / is_wanted.sum(axis=1)


def joined(parts: Sequence[Compared]) -> Compared:
    """The comparisons of several seeds; a prompt is one cluster in all of them."""
    return Compared(
        np.concatenate([part.is_wanted for part in parts]),
        np.concatenate([part.prompt for part in parts]),
        np.concatenate([part.user for part in parts]),
    )
