"""`best-of-n`: a system prompt, several answers, and the one that the user's reward prefers.

No expert takes part: what a practitioner with reward models would do instead of training. Best of n
composes with every other method, too (`n_candidates`).

Source: methods beyond.md, section 3.
"""

from dataclasses import replace

from palate.core.decision import Decision, Known, Messages
from palate.library.library import Library
from palate.methods.base import BaseMethod
from palate.methods.prompt import PromptMethod

DEFAULT_CANDIDATES = 4


class BestOfNMethod:
    """The best of several answers of the prompted base."""

    name = "best-of-n"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The plan of `prompt`, or of `base` where nothing can be put into words."""
        inner = PromptMethod() if library.instruction(known) else BaseMethod()
        decision = inner.decide(library, messages, known)
        reason = f"The best of several answers by the user's reward. {decision.reason}"
        return replace(decision, method=self.name, n_candidates=DEFAULT_CANDIDATES, reason=reason)
