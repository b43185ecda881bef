"""Rollouts of the mixture: answers with all that training needs of the experts.

The experts run here and nowhere else. Of each token one number per wanted expert is kept, `log p_i`
of the token that was drawn; from these the inner epochs recompute the mixture's log-probability
with the controller alone (M7).

Source:
    methods mope 5.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.plan import Plan, reference_plan
from palate.core.protocols import Engine, Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.core.types import Completion
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, row_distributions
from palate.mixture.decode import experts_of
from palate.mixture.reward import combined_reward, raw_reward, win_probabilities
from palate.mixture.wording import Asked, Wording
from palate.models.processes import gathered, own_share

CONTROLLER = "preference"  # the name under which a controller is given to the engine


class LogOdds(Protocol):
    """Raw Bradley-Terry scores of several objectives, one for each expert of the bank."""

    def log_odds(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Float[ndarray, "texts experts"]:
        """`[texts, experts]`, natural log-odds; only differences for one prompt mean something."""
        ...


@dataclass(frozen=True, eq=False)
class Sample:
    """One answer of the mixture.

    Attributes:
        asked: Prompt and strengths.
        context: Token ids the controller read first.
        completion: The answer.
        shares: `[tokens, experts]` with which it was drawn, over the whole bank.
        expert_log_probs: `[tokens, experts]`; zero where an expert had no row.
        wins: `[experts]`, probability of beating the reference answer.
        reward: The strengths' average of these, zero when cut; or the judge's raw reward.
        tables: `[tokens, wanted, vocab]`, all log-probabilities of the wanted experts in order;
            kept only where the pool is log-linear, whose normaliser needs them.
    """

    asked: Asked
    context: tuple[int, ...]
    completion: Completion
    shares: Float[ndarray, "tokens experts"]
    expert_log_probs: Float[ndarray, "tokens experts"]
    wins: Float[ndarray, " experts"]
    reward: float
    tables: Float[ndarray, "tokens wanted vocab"] | None = None

    @property
    def log_prob(self) -> float:
        """Of the whole answer, as it was drawn."""
        return float(sum(self.completion.log_probs))


class References:
    """Reference answers, one greedy answer of the base per prompt and preference, kept."""

    def __init__(self, engine: Engine, wording: Wording, *, max_tokens: int) -> None:
        """Start without answers; they are written when asked for."""
        self._engine = engine
        self._wording = wording
        self._sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        self._answers: dict[Asked, str] = {}

    def answers(self, asked: Sequence[Asked]) -> list[str]:
        """One per item; those not yet known are generated together."""
        missing = list(dict.fromkeys(item for item in asked if item not in self._answers))
        plan = reference_plan(n_experts=len(self._wording.instructions))
        requests = [
            Request(self._wording.full_text(item), plan, self._sampling) for item in missing
        ]
        written = self._engine.generate(requests)
        self._answers |= {a: c.text for a, c in zip(missing, written, strict=True)}
        return [self._answers[item] for item in asked]


@dataclass(frozen=True, eq=False)
class Judge:
    """Turns answers into win probabilities against the reference answers.

    Attributes:
        scores: Raw scores.
        references: What answers are compared with.
        temperature: Log-odds are divided by it, against saturation.
        is_raw: Give log-odds as rewards, not win probabilities.
    """

    scores: LogOdds
    references: References
    temperature: float = 1.0
    is_raw: bool = False

    def margins(
        self, asked: Sequence[Asked], answers: Sequence[str]
    ) -> Float[ndarray, "answers experts"]:
        """`[answers, experts]`: log-odds of beating the reference answers, tempered."""
        prompts = [item.text for item in asked]
        own = self.scores.log_odds(prompts, answers)
        other = self.scores.log_odds(prompts, self.references.answers(asked))
        return (own - other) / self.temperature

    def wins(
        self, asked: Sequence[Asked], answers: Sequence[str]
    ) -> Float[ndarray, "answers experts"]:
        """`[answers, experts]`, in (0, 1)."""
        margins = self.margins(asked, answers)
        return win_probabilities(margins, np.zeros_like(margins))


def sample(
    engine: LocalEngine,
    wording: Wording,
    judge: Judge,
    asked: Sequence[Asked],
    *,
    sampling: SamplingParams,
    seed: int,
) -> list[Sample]:
    """One answer per item, drawn under the engine's controller and judged.

    Processes that work together share the items and all get all answers.

    Args:
        engine: Has the controller under the name `CONTROLLER`.
        wording: What everybody reads.
        judge: Gives the rewards.
        asked: Prompts and strengths; an item may occur several times.
        sampling: Temperature one and no truncation, where answers are to train on.
        seed: Every place in `asked` has its own stream of it.
    """
    plans = [wording.plan(item, controller=CONTROLLER) for item in asked]
    requests = [
        Request(wording.full_text(item), plan, sampling, seed=derive_seed(seed, "rollout", place))
        for place, (item, plan) in enumerate(zip(asked, plans, strict=True))
    ]
    mine = own_share(len(asked))  # of several processes each samples and judges its part
    own = engine.trace(requests[mine])
    own_margins = judge.margins(asked[mine], [one.completion.text for one in own])
    traced, margins = gathered(own), np.array(gathered(list(own_margins)))
    completions = [one.completion for one in traced]
    wins = win_probabilities(margins, np.zeros_like(margins))
    strengths = np.array([item.strengths for item in asked])
    is_ended = np.array([completion.finish == "stop" for completion in completions])
    if judge.is_raw:
        rewards = raw_reward(margins, strengths, is_ended=is_ended)
    else:
        rewards = combined_reward(wins, strengths, is_ended=is_ended)
    return [
        Sample(
            asked=item,
            context=plan.pool.context or (),
            completion=one.completion,
            shares=_spread(one.shares, experts_of(plan), n_experts=len(item.strengths)),
            expert_log_probs=_spread(
                one.row_log_probs, experts_of(plan), n_experts=len(item.strengths)
            ),
            wins=row,
            reward=float(reward),
            tables=_tables(engine, plan, one.completion) if wording.pool == "log_linear" else None,
        )
        for item, plan, one, row, reward in zip(asked, plans, traced, wins, rewards, strict=True)
    ]


def _tables(
    engine: LocalEngine, plan: Plan, completion: Completion
) -> Float[ndarray, "tokens wanted vocab"]:
    item = Scored(plan.pool.context or (), completion.tokens)
    found = row_distributions(engine.base, engine.bank, plan=plan, item=item)
    return found.transpose(0, 1).cpu().numpy()


def _spread(
    rows: Float[ndarray, "tokens rows"], experts: Sequence[int], *, n_experts: int
) -> Float[ndarray, "tokens experts"]:
    whole = np.zeros((len(rows), n_experts))
    whole[:, list(experts)] = rows
    return whole
