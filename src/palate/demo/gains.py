"""What users gain, by rewards that taught nothing, on prompts that nothing was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.decision import AUTO
from palate.core.seeds import generator_for
from palate.core.simplex import vector_from_mapping
from palate.core.types import Interval
from palate.demo.answers import BASE, PROMPT, Place
from palate.demo.report import DemoUser, Gain, Gains
from palate.library.generate import Output
from palate.library.library import Library
from palate.metrics.intervals import bootstrap_interval
from palate.rewards.reward import RewardVector


@dataclass(frozen=True)
class Judge:
    """The library's held-back rewards."""

    rewards: RewardVector
    self_judged: tuple[str, ...]  # objectives that have only the reward of training

    def score(
        self, prompts: Sequence[str], texts: Sequence[str]
    ) -> Float[ndarray, "texts objectives"]:
        """`[texts, objectives]` in [0, 1]."""
        return np.clip(self.rewards.score(prompts, texts), 0.0, 1.0)

    def shares(self, user: DemoUser) -> Float[ndarray, " objectives"]:
        """`[objectives]`: the user's preference."""
        return vector_from_mapping(user.preference, objectives=self.rewards.objectives)


def gains_story(
    library: Library,
    judge: Judge,
    users: Sequence[DemoUser],
    outputs: Mapping[Place, Output],
    *,
    seed: int,
) -> Gains:
    """Gains of `auto` over the base and over the system prompt, per user and together."""
    prompts = list(dict.fromkeys(prompt for *_, prompt in outputs))
    scores = judge.score([place[2] for place in outputs], [one.text for one in outputs.values()])
    rewards = dict(zip(outputs, scores, strict=True))
    has_words = all((PROMPT, user.name, prompts[0]) in outputs for user in users)
    rivals = (BASE, PROMPT) if has_words else (BASE,)

    def utilities(method: str, user: DemoUser) -> Float[ndarray, " prompts"]:
        name = "" if method == BASE else user.name
        return np.array([rewards[method, name, prompt] for prompt in prompts]) @ judge.shares(user)

    def gain(
        name: str, gaps: Float[ndarray, "users rivals prompts"], predicted: Interval | None = None
    ) -> Gain:
        labels = prompts * len(gaps)
        intervals = [
            mean_interval(gaps[:, place].ravel(), labels, seed=seed, name=f"{name} {rival}")
            for place, rival in enumerate(rivals)
        ]
        return Gain(name, *intervals, predicted=predicted)

    gaps = np.array(
        [[utilities(AUTO, user) - utilities(rival, user) for rival in rivals] for user in users]
    )
    predicted = [outputs[AUTO, user.name, prompts[0]].decision.predicted_utility for user in users]
    table = library.method_table
    return Gains(
        users=tuple(
            gain(user.name, gaps[[place]], predicted[place]) for place, user in enumerate(users)
        ),
        together=gain("all together", gaps),
        n_prompts=len(prompts),
        self_judged=judge.self_judged,
        n_calibration=0 if table is None else table.n_prompts,
    )


def mean_interval(
    values: Float[ndarray, " answers"], prompts: Sequence[str], *, seed: int, name: str
) -> Interval:
    """Mean of `[answers]` with its 95 % interval over their prompts."""
    generator = generator_for(seed, "demo", "interval", name)
    return bootstrap_interval(values, clusters=prompts, generator=generator)
