"""Who judges a suite: gold rules, reward models that taught nobody, or a language model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.evaluate.suite import Suite
from palate.library.library import Library
from palate.library.rewards import held_back_rewards
from palate.rewards.judge import EndpointJudge, Question, both_orders
from palate.rewards.reward import LearnedReward, RewardVector, load_reward
from research.world.gold import gold_rewards
from research.world.grammar import parse


@dataclass(frozen=True)
class Asked:
    """An answer to be judged.

    Attributes:
        prompt: What was asked.
        text: The answer.
        reference: What the base answered, with which a comparing judge compares.
    """

    prompt: str
    text: str
    reference: str


@dataclass(frozen=True, eq=False)
class Judged:
    """What a judge said.

    Attributes:
        rewards: `[answers, objectives]` in [0, 1].
        is_well_formed: One per answer, or `None` where the judge does not say.
    """

    rewards: Float[ndarray, "answers objectives"]
    is_well_formed: list[bool] | None = None


class SuiteJudge(Protocol):
    """Judges answers for every objective."""

    def judge(self, asked: Sequence[Asked]) -> Judged:
        """What the answers are worth."""
        ...


class GoldJudge:
    """The small world's rules; they read the text alone and taught nobody."""

    def judge(self, asked: Sequence[Asked]) -> Judged:
        """Gold rewards, and whether the grammar gives such an answer to the prompt."""
        is_well_formed = [parse(one.prompt, one.text).answer is not None for one in asked]
        return Judged(gold_rewards([one.text for one in asked]), is_well_formed)


@dataclass(frozen=True, eq=False)
class RewardJudge:
    """Reward models that taught nobody.

    Attributes:
        rewards: In the order of the objectives.
    """

    rewards: RewardVector

    def judge(self, asked: Sequence[Asked]) -> Judged:
        """Their scores."""
        scores = self.rewards.score([one.prompt for one in asked], [one.text for one in asked])
        return Judged(np.clip(scores, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class LanguageJudge:
    """A language model that compares each answer with the base's, one criterion per question.

    An answer earns 1 where it was preferred in both orders, 0 where the base's was, and one half
    for ties and for verdicts that followed the position.

    Attributes:
        endpoint: The model.
        criteria: Objective to what is asked about it, in words.
    """

    endpoint: EndpointJudge
    criteria: dict[str, str]

    def judge(self, asked: Sequence[Asked]) -> Judged:
        """Win, tie or loss against the base's answer, per objective."""
        rewards = np.full((len(asked), len(self.criteria)), 0.5)
        places = [k for k, one in enumerate(asked) if one.text != one.reference]
        for column, criterion in enumerate(self.criteria.values()):
            questions = [
                Question(asked[k].prompt, asked[k].text, asked[k].reference, criterion)
                for k in places
            ]
            rewards[places, column] = both_orders(self.endpoint, questions).verdicts
        return Judged(rewards)


def suite_judge(suite: Suite, library: Library) -> SuiteJudge:
    """The judge that the suite names.

    Raises:
        InvalidInputError: a reward folder is missing, or is one that the library was trained with.
        FormatError: a folder holds something else.
    """
    chosen = suite.judge
    if chosen.kind == "gold":
        return GoldJudge()
    if chosen.kind == "held-back":
        return RewardJudge(held_back_rewards(library.files)[0])
    if chosen.kind == "llm":
        objectives = library.manifest.objectives
        criteria = {one.name: one.description or one.name for one in objectives}
        endpoint = EndpointJudge.connect(url=str(chosen.url), model=str(chosen.model))
        return LanguageJudge(endpoint, criteria)
    folder = chosen.folder or Path()
    names = library.manifest.objective_names
    judges = tuple(load_reward(folder / name) for name in names)
    for own, judge in zip(library.rewards.rewards, judges, strict=True):
        if isinstance(own, LearnedReward) and own.card.train.hash == judge.card.train.hash:
            raise InvalidInputError(
                f"The judge of {judge.objective!r} was trained on the pairs that trained the "
                "library's own reward; judge by one trained on other pairs."
            )
    return RewardJudge(RewardVector(judges))
