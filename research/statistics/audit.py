"""A judge against users: does it agree, does it flip with the order, does it like length?

Every judgment is of two answers of which a user preferred one. A judge's verdict is 1 where it
prefers that answer too, 0 where it prefers the other, 0.5 where it calls a tie (or where the order
decided). Intervals resample whole questions: all judgments of one question are one cluster.

Source: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", section 4
(agreement); Dubois et al. 2024 for length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.seeds import generator_for
from palate.metrics.intervals import Interval, bootstrap_interval
from palate.metrics.win_rates import TIE


@dataclass(frozen=True, eq=False)
class Judgments:
    """What users said.

    Attributes:
        questions: `[judgments]`, the cluster of each.
        is_longer: `[judgments]`, whether the preferred answer is the longer one.
    """

    questions: tuple[str, ...]
    is_longer: Bool[ndarray, " judgments"]


@dataclass(frozen=True, eq=False)
class JudgeAudit:
    """One judge.

    Attributes:
        judge: Its name.
        agreement: Share of verdicts that are the user's; ties count one half.
        flips: Share of comparisons whose verdict changes with the order.
        longer: Share of its decided verdicts that go to the longer answer.
        if_longer: Agreement where users preferred the longer answer.
        if_shorter: Agreement where they preferred the shorter one.
        length_gap: The first minus the second: above zero it likes length more than users do.
        on_ties: Share of verdicts for the longer answer where users called a tie, or `None`.
        n_ties: Of its own verdicts.
    """

    judge: str
    agreement: Interval
    flips: Interval
    longer: Interval
    if_longer: Interval
    if_shorter: Interval
    length_gap: Interval
    on_ties: Interval | None
    n_ties: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        values = {name: value for name, value in vars(self).items() if isinstance(value, Interval)}
        return {
            "judge": self.judge,
            "n_ties": self.n_ties,
            **{name: value.to_json() for name, value in values.items()},
        }


def audit_judge(
    name: str,
    *,
    verdicts: Float[ndarray, " judgments"],
    is_flipped: Bool[ndarray, " judgments"],
    judgments: Judgments,
    on_ties: tuple[Float[ndarray, " ties"], Sequence[str]] | None = None,
) -> JudgeAudit:
    """What can be said of a judge.

    Args:
        name: Of the judge.
        verdicts: `[judgments]`: 1 as the user, 0 against, 0.5 a tie.
        is_flipped: `[judgments]`: whether the verdict changed with the order.
        judgments: What users said.
        on_ties: Where users called a tie: verdicts for the longer answer, and questions.

    Raises:
        InvalidInputError: not one verdict per judgment, or one that is none of 1, 0.5 and 0.
    """
    if verdicts.shape != (len(judgments.questions),) or is_flipped.shape != verdicts.shape:
        raise InvalidInputError(
            f"The judge {name!r} gave {len(verdicts)} verdicts on {len(judgments.questions)} "
            "judgments; give one each."
        )
    if not np.all(np.isin(verdicts, (0.0, TIE, 1.0))):
        raise InvalidInputError(f"A verdict of {name!r} is none of 1, 0.5 (a tie) and 0.")
    questions = np.array(judgments.questions)
    longer = np.where(judgments.is_longer, verdicts, 1.0 - verdicts)
    is_decided = verdicts != TIE

    def mean(values: ndarray, label: str, kept: ndarray | None = None) -> Interval:
        chosen = np.ones(len(values), dtype=bool) if kept is None else kept
        return bootstrap_interval(
            values[chosen].astype(float),
            clusters=questions[chosen],
            generator=generator_for(0, "audit", name, label),
        )

    if is_decided.any() and len(set(questions[is_decided])) > 1:
        picks = mean(longer, "longer", is_decided)
    else:
        picks = Interval(TIE, 0.0, 1.0, 0, 0)
    return JudgeAudit(
        judge=name,
        agreement=mean(verdicts, "agreement"),
        flips=mean(is_flipped, "flips"),
        longer=picks,
        if_longer=mean(verdicts, "if longer", judgments.is_longer),
        if_shorter=mean(verdicts, "if shorter", ~judgments.is_longer),
        length_gap=_gap(verdicts, judgments, name),
        on_ties=None
        if on_ties is None
        else bootstrap_interval(
            on_ties[0], clusters=list(on_ties[1]), generator=generator_for(0, "ties", name)
        ),
        n_ties=int(np.sum(~is_decided)),
    )


def _gap(verdicts: ndarray, judgments: Judgments, name: str) -> Interval:
    """Agreement on longer choices minus that on shorter ones, whole questions resampled."""
    questions, index = np.unique(np.array(judgments.questions), return_inverse=True)
    sums = np.zeros((len(questions), 2))
    counts = np.zeros((len(questions), 2))
    column = judgments.is_longer.astype(int)
    np.add.at(sums, (index, column), verdicts)
    np.add.at(counts, (index, column), 1.0)
    generator = generator_for(0, "audit", name, "gap")
    n = len(questions)
    draws = generator.multinomial(n, np.full(n, 1 / n), size=2000)
    totals, sizes = draws @ sums, draws @ counts
    is_whole = (sizes > 0).all(axis=1)
    rates = totals[is_whole] / sizes[is_whole]
    low, high = np.quantile(rates[:, 1] - rates[:, 0], [0.025, 0.975])
    shorter, longer = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    return Interval(float(longer - shorter), float(low), float(high), len(verdicts), n)
