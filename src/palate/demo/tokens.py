"""Who wrote which token: of a mixture where the library has a controller, else of a soup."""

import numpy as np

from palate.core.decision import Known
from palate.demo.answers import Writer
from palate.demo.report import DemoUser, TokenStory
from palate.engine.detokenize import token_texts
from palate.engine.logprobs import Scored
from palate.library.explain import REFERENCE, explain_answer, soup_authors
from palate.library.generate import Output
from palate.library.library import Library
from palate.mixture.explain import Explanation
from palate.mixture.explain import TokenStory as Token
from palate.models.chat import encode_prompt


def token_story(writer: Writer, user: DemoUser, prompt: str) -> TokenStory:
    """One answer to the user, token by token.

    Raises:
        InvalidInputError: the library has no experts.
    """
    library = writer.library
    if library.controller is not None:
        explanation = explain_answer(
            library, prompt, user.preference, sampling=writer.sampling, seed=writer.seed
        )
        return TokenStory(user, "mixture", explanation)
    decision = library.decide(prompt, Known(preference=user.preference), method="soup")
    (output,) = writer.write([decision], name="answer by tokens")
    return TokenStory(user, "soup", _soup_explanation(library, prompt, output))


def _soup_explanation(library: Library, prompt: str, output: Output) -> Explanation:
    """The base's and every expert's part of each token's probability."""
    base, tokens = library.base, output.completion.tokens
    context = encode_prompt(base, library.format(output.decision.messages))
    item = Scored(tuple(context), tokens)
    active, shares = soup_authors(base, library.bank, plan=output.decision.plan, item=item)
    parts = np.column_stack([1.0 - shares.sum(axis=1), shares]).tolist()
    rows = zip(tokens, token_texts(base, tokens), output.completion.log_probs, parts, strict=True)
    return Explanation(
        prompt,
        (REFERENCE, *(library.bank.names[k] for k in active)),
        tuple(
            Token(text, log_prob, tuple(wrote), tuple(wrote))
            for token, text, log_prob, wrote in rows
            if token not in base.stop_ids
        ),
    )
