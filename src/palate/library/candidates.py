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
    if len(texts) == 1:
        return Best(0, (0.0,), 0.0)
    scores = _scores(library, decision, texts=texts, tokens=tokens)
    index = int(np.argmax(scores))
    second = float(np.max(np.delete(scores, index)))
    return Best(index, tuple(scores.tolist()), float(scores[index]) - second)


def _scores(
    library: "Library",
    decision: Decision,
    *,
    texts: Sequence[str],
    tokens: Sequence[Sequence[int]],
) -> Float[ndarray, " candidates"]:
    if decision.ranking:
        shares = vector_from_mapping(decision.ranking, objectives=library.manifest.objective_names)
        prompt = last_user_text(decision.prompt or decision.messages)
        return library.rewards.score([prompt] * len(texts), list(texts)) @ shares
    named = decision.learned_ranking
    values = coefficients_from_mapping(named, experts=library.manifest.expert_names)
    features = features_of(
        library.base,
        library.bank,
        beta=library.manifest.beta,
        context=encode_prompt(library.base, library.format(decision.prompt or decision.messages)),
        answers=tokens,
    )
    return np.array(features) @ np.array(values)
