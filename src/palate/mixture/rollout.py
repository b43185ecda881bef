"""Rollouts of the mixture: answers with everything that training needs of the experts.

The experts run here and nowhere else. Each token keeps one number per wanted expert, its
`log p_i`, from which training recomputes the mixture's log-probability with the controller alone.

Source: mope.md 5.3 and M7.

The training reward is how likely an answer is to beat a reference answer, on average:

    q_i = sigmoid(r_i(x, y) - r_i(x, y_ref))        for each wanted objective
    R   = sum_i w_i q_i                              w uniform over them, or any strengths

An answer that does not end within the limit earns zero (mope.md 5.1, Bradley-Terry win
probabilities of MoPE, arXiv 2407.04181).

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
from scipy.special import expit

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.core.types import Completion
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, row_distributions
from palate.engine.protocol import Engine
from palate.mixture.decode import experts_of
from palate.mixture.wording import MixtureRequest, Wording
from palate.models.processes import gathered, own_share
from palate.rewards.texts import messages_of


class LogOdds(Protocol):
    """Raw Bradley-Terry scores of several objectives, one for each expert of the bank."""

    def log_odds(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Float[np.ndarray, "texts experts"]:
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
    ) -> Float[np.ndarray, "answers experts"]:
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
        margins: Float[np.ndarray, "answers experts"],
        strengths: Float[np.ndarray, "answers experts"],
        *,
        is_ended: Bool[np.ndarray, " answers"],
    ) -> Float[np.ndarray, " answers"]:
        """One reward per answer; higher is better."""
        if self.is_raw:
            return raw_reward(margins, strengths, is_ended=is_ended)
        return combined_reward(win_probabilities(margins), strengths, is_ended=is_ended)


def win_probabilities(
    margins: Float[np.ndarray, "answers objectives"],
) -> Float[np.ndarray, "answers objectives"]:
    """`q_i`: one half where the answer is as good as the reference answer."""
    return np.asarray(expit(margins), dtype=np.float64)


def combined_reward(
    wins: Float[np.ndarray, "answers objectives"],
    strengths: Float[np.ndarray, "answers objectives"],
    *,
    is_ended: Bool[np.ndarray, " answers"],
) -> Float[np.ndarray, " answers"]:
    """`R`, in [0, 1]: the strengths' average of the win probabilities; zero if cut.

    `wins` are in [0, 1], ignored where the strength is zero; each row of strengths is on the
    simplex.
    """
    total = np.where(strengths > 0, wins * strengths, 0.0).sum(axis=1)
    return np.where(is_ended, total, 0.0)


def raw_reward(
    margins: Float[np.ndarray, "answers objectives"],
    strengths: Float[np.ndarray, "answers objectives"],
    *,
    is_ended: Bool[np.ndarray, " answers"],
) -> Float[np.ndarray, " answers"]:
    """`1/2 + margin / 4`, averaged with the strengths: a win probability that is not squashed.

    It is the tangent of the sigmoid at one half, so steps of learning mean the same near there. An
    answer that was cut earns what the worst one does. For the arguments see `combined_reward`;
    `margins` are log-odds against the reference answers.
    """
    total = 0.5 + 0.25 * np.where(strengths > 0, margins * strengths, 0.0).sum(axis=1)
    return np.where(is_ended, total, total.min())


CONTROLLER = "preference"  # the name under which a controller is given to the engine


@dataclass(frozen=True, eq=False)
class Task:
    """What a controller is trained on."""

    engine: LocalEngine  # has the controller under the name `CONTROLLER`
    wording: Wording
    judge: Judge
    prompts: tuple[str, ...]
    combinations: tuple[tuple[float, ...], ...]  # strengths over the experts

    def __post_init__(self) -> None:
        """Refuse a task with nothing to answer."""
        if not self.prompts or not self.combinations:
            raise InvalidInputError(
                f"There are {len(self.prompts)} prompts and {len(self.combinations)} combinations "
                "to train on; give at least one of each."
            )

    def draw_pairs(self, n_pairs: int, *, generator: np.random.Generator) -> list[MixtureRequest]:
        """`[2 n_pairs]`: random prompts and combinations, every one twice in a row."""
        prompts = generator.integers(len(self.prompts), size=n_pairs)
        combinations = generator.integers(len(self.combinations), size=n_pairs)
        places = zip(prompts.repeat(2).tolist(), combinations.repeat(2).tolist(), strict=True)
        read = [*map(messages_of, self.prompts)]
        return [MixtureRequest(read[p], self.combinations[c]) for p, c in places]


@dataclass(frozen=True, eq=False)
class Sample:
    """One answer of the mixture."""

    request: MixtureRequest
    context: tuple[int, ...]  # token ids before the answer in the controller's input
    completion: Completion
    shares: Float[np.ndarray, "tokens experts"]  # that it was sampled with, over the whole bank
    expert_log_probs: Float[np.ndarray, "tokens experts"]  # `log p_i(y_t)`; zero without a row
    wins: Float[np.ndarray, " experts"]  # probability of beating the reference answer
    reward: float
    tables: Float[np.ndarray, "tokens wanted vocab"] | None = None  # log p, if log-linear

    @property
    def log_prob(self) -> float:
        """Log-probability of the whole answer, as it was sampled."""
        return float(sum(self.completion.log_probs))


def sample(
    task: Task,
    requests: Sequence[MixtureRequest],
    *,
    sampling: SamplingParams,
    seed: int,
    is_uniform: bool = False,
) -> list[Sample]:
    """One answer per request, sampled under the task's controller and judged.

    Processes that work together share the requests and all get all answers. Where answers are to
    train on, the temperature is one and nothing is truncated. Every place in `requests` has its own
    stream of the seed.
    """
    controller = None if is_uniform else CONTROLLER
    plans = [task.wording.plan(item, controller=controller) for item in requests]
    own = own_share(len(requests))  # of several processes each samples and judges its part
    own_traced = task.engine.trace(
        [
            Request(
                task.wording.full_text(requests[place]),
                plans[place],
                sampling,
                seed=derive_seed(seed, "rollout", place),
            )
            for place in range(len(requests))[own]
        ]
    )
    own_margins = task.judge.margins(requests[own], [one.completion.text for one in own_traced])
    traced, margins = gathered(own_traced), np.array(gathered(list(own_margins)))
    rewards = task.judge.rewards(
        margins,
        np.array([item.strengths for item in requests]),
        is_ended=np.array([one.completion.finish == "stop" for one in traced]),
    )
    wins = win_probabilities(margins)
    return [
        Sample(
            request=item,
            context=plan.pool.context or (),
            completion=one.completion,
            shares=_spread(one.shares, experts_of(plan), n_experts=len(item.strengths)),
            expert_log_probs=_spread(
                one.row_log_probs, experts_of(plan), n_experts=len(item.strengths)
            ),
            wins=row,
            reward=float(reward),
            tables=None if is_uniform else _tables(task, plan, one.completion),
        )
        for item, plan, one, row, reward in zip(requests, plans, traced, wins, rewards, strict=True)
    ]


def _tables(
    task: Task, plan: Plan, completion: Completion
) -> Float[np.ndarray, "tokens wanted vocab"] | None:
    if task.wording.pool == "linear":
        return None
    item = Scored(plan.pool.context or (), completion.tokens)
    rows = row_distributions(task.engine.base, task.engine.bank, plan=plan, item=item)
    return rows.transpose(0, 1).cpu().numpy()


def _spread(
    rows: Float[np.ndarray, "tokens rows"], experts: Sequence[int], *, n_experts: int
) -> Float[np.ndarray, "tokens experts"]:
    whole = np.zeros((len(rows), n_experts))
    whole[:, list(experts)] = rows
    return whole
