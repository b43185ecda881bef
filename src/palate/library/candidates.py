"""Best of n: how candidates of one answer are drawn, ranked, and which one is kept.

A stated preference ranks by the library's own rewards, `w . r`. Coefficients, given or learned,
rank by the reward whose soup they are: `sum_k c_k beta (log p_k(answer) - log p_0(answer))`.

Either way answers are read after the user's own conversation, without what a method added, as
feedback is: so a reward does not depend on the method.

Source: methods beyond.md, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.decision import Decision, last_user_text
from palate.core.plan import coefficients_from_mapping
from palate.core.protocols import Request
from palate.core.seeds import derive_seed
from palate.core.simplex import vector_from_mapping
from palate.library.features import features_of
from palate.models.chat import encode_prompt

if TYPE_CHECKING:
    from palate.library.library import Library


@dataclass(frozen=True, eq=False)
class Best:
    """Which candidate is kept.

    Attributes:
        index: Of the candidate; the first of equals.
        scores: `[candidates]`, by the user's reward.
        lead: How far the kept one leads the second, in the reward's units; 0 with one candidate.
    """

    index: int
    scores: tuple[float, ...]
    lead: float


def candidate_requests(request: Request, *, n: int) -> list[Request]:
    """`n` requests like this one, each with a seed of its own; one is the request itself."""
    if n == 1:
        return [request]
    return [
        replace(request, seed=derive_seed(request.seed, "candidate", turn)) for turn in range(n)
    ]


@dataclass(frozen=True)
class Candidates:
    """The candidates of one answer.

    Attributes:
        decision: With its ranking.
        texts: `[candidates]`, the answers.
        tokens: `[candidates]`, their token ids.
    """

    decision: Decision
    texts: Sequence[str]
    tokens: Sequence[Sequence[int]]


def best_candidate(
    library: "Library",
    decision: Decision,
    *,
    texts: Sequence[str],
    tokens: Sequence[Sequence[int]],
) -> Best:
    """The candidate that the user's reward prefers.

    Args:
        library: Whose rewards and experts rank.
        decision: With its ranking.
        texts: `[candidates]`, the answers.
        tokens: `[candidates]`, their token ids.

    Raises:
        FormatError: the ranking needs a reward that the library does not have.
    """
    return best_candidates(library, [Candidates(decision, texts, tokens)])[0]


def best_candidates(library: "Library", groups: Sequence[Candidates]) -> list[Best]:
    """The kept candidate of every answer; rewards read all candidates of all answers at once.

    Raises:
        FormatError: a ranking needs a reward that the library does not have.
    """
    stated = [one for one in groups if len(one.texts) > 1 and one.decision.ranking]
    rewards: Float[ndarray, "texts objectives"] | None = None
    if stated:
        prompts = [_prompt(one.decision) for one in stated for _ in one.texts]
        rewards = library.rewards.score(prompts, [text for one in stated for text in one.texts])
    start = 0
    kept: list[Best] = []
    for one in groups:
        if len(one.texts) == 1:
            kept.append(Best(0, (0.0,), 0.0))
        elif rewards is not None and one.decision.ranking:
            end = start + len(one.texts)
            names = library.manifest.objective_names
            shares = vector_from_mapping(one.decision.ranking, objectives=names)
            kept.append(_best(rewards[start:end] @ shares))
            start = end
        else:
            kept.append(_best(_learned_scores(library, one)))
    return kept


def _best(scores: Float[ndarray, " candidates"]) -> Best:
    index = int(np.argmax(scores))
    second = float(np.max(np.delete(scores, index)))
    return Best(index, tuple(scores.tolist()), float(scores[index]) - second)


def _prompt(decision: Decision) -> str:
    return last_user_text(decision.prompt or decision.messages)


def _learned_scores(library: "Library", one: Candidates) -> Float[ndarray, " candidates"]:
    """By the reward whose soup the coefficients are."""
    decision = one.decision
    values = coefficients_from_mapping(
        decision.learned_ranking, experts=library.manifest.expert_names
    )
    features = features_of(
        library.base,
        library.bank,
        beta=library.manifest.beta,
        context=encode_prompt(library.base, library.format(decision.prompt or decision.messages)),
        answers=one.tokens,
    )
    return np.array(features) @ np.array(values)
