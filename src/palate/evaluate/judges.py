"""Who judges a suite: reward models that taught nobody, a language model, or a function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError
from palate.evaluate.suite import JudgeSettings
from palate.library.library import Library
from palate.library.rewards import held_back_rewards
from palate.rewards.functions import function_at
from palate.rewards.judge import EndpointJudge, Question, both_orders
from palate.rewards.reward import LearnedReward, RewardVector, load_reward


@dataclass(frozen=True)
class Candidate:
    """An answer to be judged, and the base's, with which a comparing judge compares."""

    prompt: str
    text: str
    reference: str


@dataclass(frozen=True, eq=False)
class Judged:
    """What answers are worth."""

    rewards: Float[np.ndarray, "answers objectives"]  # in [0, 1]
    is_well_formed: Sequence[bool] | None = None  # one per answer; None where a judge cannot say


class SuiteJudge(Protocol):
    """Judges answers for every objective."""

    def judge(self, candidates: Sequence[Candidate], /) -> Judged:
        """What the answers are worth."""
        ...


@dataclass(frozen=True, eq=False)
class FunctionJudge:
    """A function of prompts and completions.

    It gives rewards in [0, 1], `[answers, objectives]`, or a pair of these and of one flag per
    answer that says whether it is well-formed.
    """

    function: Callable[[list[str], list[str]], Any]
    n_objectives: int

    def judge(self, candidates: Sequence[Candidate], /) -> Judged:
        """What the function gives.

        Raises:
            InvalidInputError: it is not one reward in [0, 1] for each answer and objective.
        """
        prompts, texts = [one.prompt for one in candidates], [one.text for one in candidates]
        result = self.function(prompts, texts)
        values, flags = result if isinstance(result, tuple) else (result, None)
        rewards = np.asarray(values, dtype=np.float64)
        is_in_range = bool(((rewards >= 0) & (rewards <= 1)).all())
        if rewards.shape != (len(texts), self.n_objectives) or not is_in_range:
            raise InvalidInputError(
                f"The judge gave an array of shape {rewards.shape} for {len(texts)} answers and "
                f"{self.n_objectives} objectives; let it give numbers in [0, 1], one for each."
            )
        return Judged(rewards, None if flags is None else [bool(flag) for flag in flags])


@dataclass(frozen=True, eq=False)
class LanguageJudge:
    """A language model that compares each answer with the base's, one criterion per question.

    An answer earns 1 where it was preferred in both orders, 0 where the base's was, and one half
    for ties and for verdicts that followed the position.
    """

    endpoint: EndpointJudge
    criteria: dict[str, str]  # objective to its criterion in words

    def judge(self, candidates: Sequence[Candidate], /) -> Judged:
        """Win, tie or loss against the base's answer, per objective."""
        rewards = np.full((len(candidates), len(self.criteria)), 0.5)
        places = [k for k, one in enumerate(candidates) if one.text != one.reference]
        for column, criterion in enumerate(self.criteria.values()):
            questions = [
                Question(one.prompt, one.text, one.reference, criterion)
                for one in (candidates[k] for k in places)
            ]
            rewards[places, column] = both_orders(self.endpoint, questions).verdicts
        return Judged(rewards)


def judge_for(settings: JudgeSettings, library: Library) -> SuiteJudge:
    """The judge that the settings name.

    Raises:
        InvalidInputError: a reward folder is missing, or is one that the library was trained with,
            or a function cannot be imported.
        FormatError: a folder holds something else.
    """
    objectives = library.manifest.objectives
    if settings.kind == "held-back":
        return _by_rewards(held_back_rewards(library.files)[0])
    if settings.kind == "function":
        return FunctionJudge(function_at(settings.function or ""), len(objectives))
    if settings.kind == "llm":
        criteria = {one.name: one.description or one.name for one in objectives}
        endpoint = EndpointJudge.connect(url=str(settings.url), model=str(settings.model))
        return LanguageJudge(endpoint, criteria)
    folder = settings.folder or Path()
    judges = tuple(load_reward(folder / one.name) for one in objectives)
    for own, judge in zip(library.rewards.rewards, judges, strict=True):
        if isinstance(own, LearnedReward) and own.card.train.hash == judge.card.train.hash:
            raise InvalidInputError(
                f"The judge of {judge.objective!r} was trained on the pairs that trained the "
                "library's own reward; judge by one trained on other pairs."
            )
    return _by_rewards(RewardVector(judges))


def _by_rewards(rewards: RewardVector) -> FunctionJudge:
    """Reward models that taught nobody, in the order of the objectives."""
    return FunctionJudge(rewards.score, len(rewards.rewards))


def held_back_notes(library: Library) -> list[str]:
    """What has to be said where the library's own rewards judge."""
    missing = held_back_rewards(library.files)[1]
    if not missing:
        return []
    return [
        f"Judged by the reward that taught the experts, which flatters what was trained or ranked "
        f"by it: {', '.join(missing)}."
    ]
