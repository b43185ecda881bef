"""The learned policies of the portfolio study: trained on the small world, measured twice.

For every seed a library of three objectives is built anew. Experts are trained for uniform anchors,
for random anchors, and where adaptive search asks for them. Each is measured on prompts about the
training topics with the library's own rewards, which is all that a method of choosing members sees,
and on the held-out prompts with the gold rules, which taught nobody and are the judge. A study that
was interrupted goes on where it stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field, model_validator

from palate.build.builder import Builder, open_builder
from palate.build.grow import ModelOracle, Prices, maker, without_errors
from palate.build.payoff_job import PayoffEstimator
from palate.build.run_file import RunSettings
from palate.core.errors import InvalidInputError
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed, generator_for
from palate.core.settings import Settings
from palate.portfolio.adaptive import Oracle, SearchSettings, steps
from palate.portfolio.payoffs import Measurements, Payoffs
from palate.training.train import deterministic
from research.portfolio.baselines import random_anchors, uniform_anchors
from research.world.gold import gold_rewards
from research.world.objectives import OBJECTIVE_NAMES
from research.world.prompts import further_prompts, held_out_prompts
from research.world.settings import world_run

OBJECTIVES = ("elementary", "expert", "friendly")  # two that pull against each other, one beside
GOLD_KEY = "gold rules"


class WorldStudySettings(Settings):
    """How large the study is.

    Attributes:
        objectives: Of the small world, in its order.
        seeds: One library each.
        max_size: Largest portfolio; also how many uniform and random anchors are trained.
        max_calls: Policies that adaptive search may make.
        n_prompts: That policies are chosen on.
        n_answers: Of every policy to every held-out prompt.
        n_resamples: Of the held-out prompts, for intervals.
    """

    objectives: Annotated[tuple[str, ...], Field(min_length=2)] = OBJECTIVES
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    max_size: int = Field(default=8, ge=1, le=20)
    max_calls: int = Field(default=8, ge=2)
    n_prompts: int = Field(default=240, ge=4)
    n_answers: int = Field(default=2, ge=1)
    n_resamples: int = Field(default=1000, ge=1)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.objectives:
            if name not in OBJECTIVE_NAMES:
                raise InvalidInputError(
                    f"The small world has no objective {name!r}; it has "
                    f"{', '.join(OBJECTIVE_NAMES)}."
                )
        if list(self.objectives) != [n for n in OBJECTIVE_NAMES if n in self.objectives]:
            raise InvalidInputError(
                f"The objectives {', '.join(self.objectives)} repeat or are not in the world's "
                f"order; give some of {', '.join(OBJECTIVE_NAMES)}."
            )
        if self.max_calls < len(self.objectives):
            raise InvalidInputError(
                f"The search may make {self.max_calls} policies, but begins with one for each of "
                f"{len(self.objectives)} objectives; allow at least as many."
            )
        return self


@dataclass(frozen=True, eq=False)
class Trained:
    """One seed's policies.

    Attributes:
        seed: Of the library.
        seen: What choices are made on: the library's rewards.
        gold: The same policies on held-out prompts, judged by the gold rules.
        texts: `[policies][prompts][answers]`, what was judged.
        uniform: Names for the uniform anchors, by size of the portfolio.
        random: Names for the random anchors.
        adaptive: Names in the order in which adaptive search asked for them.
    """

    seed: int
    seen: Measurements
    gold: Measurements
    texts: tuple[tuple[tuple[str, ...], ...], ...]
    uniform: tuple[tuple[str, ...], ...]
    random: tuple[str, ...]
    adaptive: tuple[str, ...]


@dataclass(frozen=True)
class GoldRules:
    """The gold rules for some of the world's objectives."""

    objectives: tuple[str, ...]

    def score(
        self, prompts: Sequence[str], answers: Sequence[str]
    ) -> Float[ndarray, "texts objectives"]:
        """`[texts, objectives]` in [0, 1]; the prompts are not looked at."""
        del prompts
        columns = [OBJECTIVE_NAMES.index(name) for name in self.objectives]
        return gold_rewards(answers)[:, columns]


@dataclass(frozen=True, eq=False)
class Estimates:
    """An oracle whose values are taken as exact, so that a search spends its whole budget.

    Attributes:
        oracle: Who does the work.
    """

    oracle: Oracle

    @property
    def objectives(self) -> tuple[str, ...]:
        """The oracle's objectives."""
        return self.oracle.objectives

    def policy(self, preference: Float[ndarray, " objectives"]) -> str:
        """The oracle's policy."""
        return self.oracle.policy(preference)

    def payoffs(self, policies: Sequence[str]) -> Payoffs:
        """The oracle's estimates, without their standard errors."""
        return without_errors(self.oracle.payoffs(policies))


def study_run(folder: Path, objectives: Sequence[str] = OBJECTIVES, *, seed: int) -> RunSettings:
    """The world's run file with some of its objectives; its inputs lie in `folder`."""
    settings = world_run(folder, seed=seed)
    kept = tuple(row for row in settings.objectives if row.name in objectives)
    return settings.model_copy(update={"objectives": kept})


def study_prompts(n_prompts: int, *, seed: int) -> tuple[str, ...]:
    """Prompts that members are chosen on, drawn from those that no rollout was sampled for."""
    pool = further_prompts()
    order = generator_for(seed, "further prompts").permutation(len(pool))[:n_prompts]
    return tuple(pool[k] for k in sorted(order))


def trained_policies(settings: WorldStudySettings, *, seed: int, work: Path) -> Trained:
    """Train and measure one seed's policies, or read those that are there."""
    run = study_run(work, settings.objectives, seed=seed)
    with deterministic(n_threads=run.training.n_threads):
        builder = open_builder(run, out=work / f"seed-{seed}")
        seen = Prices(builder, _seen_estimator(builder, settings), work / f"seed-{seed}/policies")
        judged = Prices(builder, _gold_estimator(builder, settings), work / f"gold-{seed}")
        oracle = ModelOracle(maker("trained", builder), seen)
        with progress_of(f"seed {seed}, policies made") as report:
            fixed = _fixed(settings, seed=seed)
            n_all = sum(len(anchors) for anchors in fixed) + settings.max_calls
            made: list[str] = []
            for anchors in fixed:
                for anchor in anchors:
                    made.append(oracle.policy(anchor))
                    seen.of(oracle.policies[made[-1]])
                    report(len(made), n_all)
            adaptive = _searched(oracle, settings)
            report(n_all, n_all)
        gold = replace(oracle, prices=judged)
        names = tuple(dict.fromkeys([*made, *adaptive]))
        with progress_of(f"seed {seed}, policies judged") as report:
            for place, name in enumerate(names, start=1):
                judged.of(oracle.policies[name])
                report(place, len(names))
        n_uniform = len(fixed[0])
        return Trained(
            seed=seed,
            seen=oracle.measurements(names),
            gold=gold.measurements(names),
            texts=tuple(judged.of(oracle.policies[name]).texts for name in names),
            uniform=tuple(
                tuple(
                    oracle.policy(anchor)
                    for anchor in uniform_anchors(n_objectives=len(settings.objectives), size=size)
                )
                for size in range(1, settings.max_size + 1)
            ),
            random=tuple(made[n_uniform:]),
            adaptive=adaptive,
        )


def _fixed(
    settings: WorldStudySettings, *, seed: int
) -> list[Float[ndarray, "anchors objectives"]]:
    """Anchors that no result changes: uniform ones, random ones."""
    n_objectives = len(settings.objectives)
    every = np.vstack(
        [
            uniform_anchors(n_objectives=n_objectives, size=size)
            for size in range(1, settings.max_size + 1)
        ]
    )
    uniform = np.array(list(dict.fromkeys(tuple(row) for row in every.tolist())))
    random = random_anchors(
        n_objectives=n_objectives,
        size=settings.max_size,
        generator=generator_for(seed, "random anchors"),
    )
    return [uniform, random]


def _searched(oracle: ModelOracle, settings: WorldStudySettings) -> tuple[str, ...]:
    """Policies in the order in which adaptive search makes them."""
    rules = SearchSettings(tolerance=0.0, max_calls=settings.max_calls)
    last: Iterator[Payoffs] = (state.payoffs for state in steps(Estimates(oracle), rules))
    names: tuple[str, ...] = ()
    for payoffs in last:
        names = payoffs.table.policies
    return names


def _seen_estimator(builder: Builder, settings: WorldStudySettings) -> PayoffEstimator:
    return PayoffEstimator(
        base=builder.base,
        prompts=study_prompts(settings.n_prompts, seed=builder.settings.seed),
        reward=builder.reward,
        reward_key=builder.reward_key,
        n_answers=1,
        max_tokens=builder.settings.rollouts.max_completion_length,
        seed=derive_seed(builder.settings.seed, "seen"),
    )


def _gold_estimator(builder: Builder, settings: WorldStudySettings) -> PayoffEstimator:
    return PayoffEstimator(
        base=builder.base,
        prompts=held_out_prompts(),
        reward=GoldRules(builder.settings.objective_names),
        reward_key=GOLD_KEY,
        n_answers=settings.n_answers,
        max_tokens=builder.settings.rollouts.max_completion_length,
        seed=derive_seed(builder.settings.seed, "gold"),
    )
