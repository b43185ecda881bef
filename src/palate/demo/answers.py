"""The demo's answers, and what users gain by rewards that taught nothing.

Every decision is `Library.decide`'s, and no answer is sampled twice. Gains are measured on prompts
that nothing was trained on.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.decision import AUTO, Decision, Known, last_user_text
from palate.core.progress import progress_of
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.core.simplex import vector_from_mapping
from palate.core.types import Interval
from palate.demo.report import DemoUser, Gain, Gains
from palate.library.generate import Output, generate_all
from palate.library.library import Library
from palate.metrics.intervals import bootstrap_interval
from palate.rewards.reward import RewardVector

MAX_TOKENS = 90  # of an answer
BASE, PROMPT = "base", "prompt"
_BATCH = 64  # answers between two lines of progress
Place = tuple[str, str, str]  # method, name of the user (empty for the base), prompt


class Writer:
    """Samples answers in batches and keeps them; equal plans give one answer to a prompt."""

    def __init__(self, library: Library, *, seed: int) -> None:
        """Nothing is sampled yet."""
        self.library = library
        self.seed = seed
        self.sampling = replace(library.sampling, max_tokens=MAX_TOKENS)  # as users are served
        self._written: dict[Hashable, Output] = {}

    def write(
        self, decisions: Sequence[Decision], *, name: str, max_tokens: int = MAX_TOKENS
    ) -> list[Output]:
        """The answers of these decisions, in order; `name` is what the progress line says."""
        sampling = replace(self.sampling, max_tokens=max_tokens)
        keys = [self._key(decision, sampling) for decision in decisions]
        new = {
            key: decision
            for key, decision in zip(keys, decisions, strict=True)
            if key not in self._written
        }
        with progress_of(name) as report:
            for start in range(0, len(new), _BATCH):
                part = dict(list(new.items())[start : start + _BATCH])
                outputs = generate_all(
                    self.library,
                    list(part.values()),
                    sampling=sampling,
                    seeds=[self.seed_of(last_user_text(one.prompt)) for one in part.values()],
                )
                self._written.update(zip(part, outputs, strict=True))
                report(start + len(part), len(new))
        return [self._written[key] for key in keys]

    def seed_of(self, prompt: str) -> int:
        """Seed of every answer to this prompt, the same for all users and methods."""
        return derive_seed(self.seed, "demo", prompt)

    def _key(self, decision: Decision, sampling: SamplingParams) -> Hashable:
        ranking = (*decision.ranking.items(), *decision.learned_ranking.items())
        text = self.library.format(decision.messages)
        return text, decision.plan.normal_form(), decision.n_candidates, ranking, sampling


def answer_users(
    writer: Writer, users: Sequence[DemoUser], prompts: Sequence[str]
) -> dict[Place, Output]:
    """What every user gets to every prompt, beside the base and a system prompt.

    The system prompt is left out where the library's objectives have no words.
    """
    library, decisions = writer.library, dict[Place, Decision]()
    for prompt in prompts:
        decisions[BASE, "", prompt] = library.decide(prompt, method=BASE)
        for user in users:
            known = Known(preference=user.preference)
            decisions[AUTO, user.name, prompt] = library.decide(prompt, known)
            if library.instruction(known):
                decided = library.decide(prompt, known, method=PROMPT)
                decisions[PROMPT, user.name, prompt] = decided
    outputs = writer.write(list(decisions.values()), name="answers to users")
    return dict(zip(decisions, outputs, strict=True))


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
