"""`palate mixture explain`: one answer under the controller, with each expert's share of tokens."""

from collections.abc import Mapping
from pathlib import Path

from palate.core.decision import Known
from palate.core.files import write_text_atomic
from palate.core.protocols import Request, SamplingParams
from palate.engine.detokenize import token_texts
from palate.library.generate import answer_seed
from palate.library.library import Library
from palate.mixture.decode import experts_of
from palate.mixture.explain import Explanation, explain, render_page


def explain_answer(
    library: Library,
    prompt: str,
    preference: Mapping[str, float],
    *,
    sampling: SamplingParams,
    seed: int = 0,
    out: Path | None = None,
) -> Explanation:
    """An answer, explained token by token; written as a page if `out` names one.

    Raises:
        InvalidInputError: the preference is off the simplex, an objective has no expert, or the
            library has no controller.
    """
    decision = library.decide(prompt, Known(preference=preference), method="mixture")
    text = library.format(decision.messages)
    request = Request(text, decision.plan, sampling, seed=answer_seed(seed))
    (traced,) = library.engine.trace([request])
    tokens = traced.completion.tokens
    explanation = explain(
        prompt=prompt,
        experts=[library.bank.names[expert] for expert in experts_of(request.plan)],
        texts=[
            "⏹" if token in library.base.stop_ids else text
            for token, text in zip(tokens, token_texts(library.base, tokens), strict=True)
        ],
        shares=traced.shares,
        expert_log_probs=traced.row_log_probs,
    )
    if out is not None:
        write_text_atomic(out, render_page(explanation))
    return explanation
