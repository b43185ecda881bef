"""`palate mixture explain`: one answer under the controller, and who wrote each of its tokens."""

from collections.abc import Mapping
from pathlib import Path

from palate.core.files import write_text_atomic
from palate.core.protocols import Sampling
from palate.mixture.decode import experts_of
from palate.mixture.explain import Explanation, explain, render_page
from palate.recipes.mixture_open import OpenedMixture
from palate.serve.words import token_texts


def explain_answer(
    mixture: OpenedMixture,
    prompt: str,
    preference: Mapping[str, float],
    *,
    sampling: Sampling,
    seed: int = 0,
    out: Path | None = None,
) -> Explanation:
    """An answer, told token by token; written as a page if `out` names one.

    Raises:
        InvalidInputError: the preference is off the simplex, or an objective has no expert.
    """
    request = mixture.request(prompt, preference, sampling=sampling, seed=seed)
    (found,) = mixture.engine.trace([request])
    names = mixture.opened.bank.names
    told = explain(
        prompt=prompt,
        experts=[names[expert] for expert in experts_of(request.plan)],
        texts=_texts(mixture, found.completion.tokens),
        shares=found.shares,
        expert_log_probs=found.row_log_probs,
    )
    if out is not None:
        write_text_atomic(out, render_page(told))
    return told


def _texts(mixture: OpenedMixture, tokens: tuple[int, ...]) -> list[str]:
    """What each token adds; a token in the middle of a character shows its replacement sign."""
    base = mixture.opened.base
    texts = zip(tokens, token_texts(base, tokens), strict=True)
    return ["⏹" if token in base.stop_ids else text for token, text in texts]
