"""Rollouts of the mixture: answers with everything that training needs of the experts.

The experts run here and nowhere else. Each token keeps one number per wanted expert, its
`log p_i`, from which training recomputes the mixture's log-probability with the controller alone.

Source:
    mope.md 5.3 and M7.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.core.types import Completion
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, row_distributions
from palate.mixture.decode import experts_of
from palate.mixture.reward import Judge, win_probabilities
from palate.mixture.wording import MixtureRequest, Wording
from palate.models.processes import gathered, own_share
from palate.rewards.texts import messages_of

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
    shares: Float[ndarray, "tokens experts"]  # that it was sampled with, over the whole bank
    expert_log_probs: Float[ndarray, "tokens experts"]  # `log p_i(y_t)`; zero without a row
    wins: Float[ndarray, " experts"]  # probability of beating the reference answer
    reward: float
    tables: Float[ndarray, "tokens wanted vocab"] | None = None  # log p, if log-linear

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
) -> Float[ndarray, "tokens wanted vocab"] | None:
    if task.wording.pool == "linear":
        return None
    item = Scored(plan.pool.context or (), completion.tokens)
    rows = row_distributions(task.engine.base, task.engine.bank, plan=plan, item=item)
    return rows.transpose(0, 1).cpu().numpy()


def _spread(
    rows: Float[ndarray, "tokens rows"], experts: Sequence[int], *, n_experts: int
) -> Float[ndarray, "tokens experts"]:
    whole = np.zeros((len(rows), n_experts))
    whole[:, list(experts)] = rows
    return whole
