"""Best of n: how the candidates of an answer are sampled and ranked.

A stated preference ranks by the library's own rewards, `w . r`. Coefficients, given or learned,
rank by the reward of the soup with these coefficients: `sum_k c_k beta (log p_k - log p_0)`.

Both score answers to the user's own conversation, without what a method added to it, so that a
score does not depend on the method.

Source: methods beyond.md, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from palate.core.decision import Decision, last_user_text
from palate.core.plan import coefficients_from_mapping
from palate.core.protocols import Request
from palate.core.seeds import derive_seed
from palate.core.simplex import vector_from_mapping
from palate.models.chat import encode_prompt

if TYPE_CHECKING:
    from palate.library.library import Library


@dataclass(frozen=True)
class Candidates:
    """The candidates of one answer."""

    decision: Decision  # with its ranking
    texts: Sequence[str]  # `[candidates]`
    tokens: Sequence[Sequence[int]]  # `[candidates]`, token ids


@dataclass(frozen=True, eq=False)
class Best:
    """The candidate ranked first, the earliest of equals."""

    index: int
    scores: tuple[float, ...]  # `[candidates]`, by the user's reward
    lead: float  # over the second, in the reward's units; 0 with one candidate


def candidate_requests(request: Request, *, n: int) -> list[Request]:
    """`n` requests like this one, each with its own seed; one is the request itself."""
    if n == 1:
        return [request]
    return [
        replace(request, seed=derive_seed(request.seed, "candidate", turn)) for turn in range(n)
    ]


def best_candidates(library: "Library", groups: Sequence[Candidates]) -> list[Best]:
    """The best candidate of every answer, in one batch; FormatError where a reward is missing."""
    by_rewards = [one for one in groups if len(one.texts) > 1 and one.decision.ranking]
    prompts = [
        last_user_text(one.decision.prompt or one.decision.messages)
        for one in by_rewards
        for _ in one.texts
    ]
    texts = [text for one in by_rewards for text in one.texts]
    rewards = iter(library.rewards.score(prompts, texts) if texts else ())  # of one text each
    best: list[Best] = []
    for one in groups:
        if len(one.texts) == 1:
            best.append(Best(0, (0.0,), 0.0))
        elif one.decision.ranking:
            names = library.manifest.objective_names
            shares = vector_from_mapping(one.decision.ranking, objectives=names)
            best.append(_best(np.array([next(rewards) for _ in one.texts]) @ shares))
        else:
            best.append(_best(_learned_scores(library, one)))
    return best


def _best(scores: Float[np.ndarray, " candidates"]) -> Best:
    index = int(np.argmax(scores))
    second = float(np.max(np.delete(scores, index)))
    return Best(index, tuple(scores.tolist()), float(scores[index]) - second)


def _learned_scores(library: "Library", one: Candidates) -> Float[np.ndarray, " candidates"]:
    """By the reward of the soup with the learned coefficients."""
    decision = one.decision
    names = library.manifest.expert_names
    text = library.format(decision.prompt or decision.messages)
    features = library.features(encode_prompt(library.base, text), one.tokens)
    return np.array(features) @ coefficients_from_mapping(decision.learned_ranking, experts=names)
