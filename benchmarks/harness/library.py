"""A library under one method as a language model for the lm-evaluation-harness.

Here is what the harness asks of a model, without the harness: log-likelihoods of continuations, of
whole texts in windows, and continuations up to a stop. `benchmarks.harness.model` is the thin class
that the harness takes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.decision import Known
from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import derive_seed
from palate.engine.forced import plan_distributions
from palate.engine.logprobs import Scored
from palate.library.library import Library
from palate.models.chat import encode_answer, encode_prompt, token_ids

MAX_NEW_TOKENS = 256  # where a task does not say
LONGEST = 2048  # context of a base that does not say its own
BLOCK = 64  # continuations that are generated at a time


@dataclass(frozen=True, eq=False)
class HarnessModel:
    """A library that answers every request under one method, for one user.

    A context that the method leaves as it is stays as the harness wrote it; one that a method adds
    a system sentence to is formatted as a conversation of one message.
    """

    opened: Library  # base, bank, engine
    known: Known  # of the user
    method: str = "auto"  # a name in the library's methods
    seed: int = 0  # random seed of continuations that are sampled

    def decide(self, context: str) -> tuple[str, Plan]:
        """The context as the base reads it, and the plan for it; raises as `Library.decide`."""
        decision = self.opened.decide(context, self.known, method=self.method)
        if decision.n_candidates > 1:
            raise InvalidInputError(
                "Best of n has no probability that the harness could read; give it a method that "
                "draws one answer."
            )
        if decision.messages == context:
            return context, decision.plan
        return self.opened.format(decision.messages), decision.plan

    @property
    def max_tokens(self) -> int:
        """Longest text that the base reads at once."""
        return self.opened.base.n_positions or LONGEST

    @property
    def prefix(self) -> int:
        """What stands before a text that has no context: the beginning token, or the end token."""
        tokenizer = self.opened.base.tokenizer
        for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            if token is not None:
                return int(str(token))
        raise InvalidInputError(
            "The base has neither a beginning nor an end token, so a text without context has no "
            "first distribution; score texts with a context."
        )

    def log_likelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        """Natural log-probability of the continuation, and whether greedy decoding gives it.

        Spaces at the end of the context are counted to the continuation, as in the harness. A
        context that is too long loses its beginning.
        """
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        base = self.opened.base
        stripped, plan = self.decide(stripped)
        before = encode_prompt(base, stripped) if stripped else [self.prefix]
        answer = (
            encode_answer(base, stripped, continuation, is_ended=False)
            if stripped
            else token_ids(base, continuation)
        )
        answer = answer[-(self.max_tokens - 1) :]
        return self._scored(before[-(self.max_tokens - len(answer)) :], answer, plan)

    def rolling(self, text: str) -> float:
        """Natural log-probability of a whole text, every token once, in windows."""
        tokens = [self.prefix, *token_ids(self.opened.base, text)]
        _, plan = self.decide("")
        return sum(
            self._scored(tokens[start:first], tokens[first:end], plan)[0]
            for start, first, end in windows(len(tokens), size=self.max_tokens - 1)
        )

    def generate(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Continuations of contexts, each with the harness's settings for it."""
        prepared: list[Request] = []
        for place, (context, settings) in enumerate(requests):
            text, plan = self.decide(context)
            seed = derive_seed(self.seed, "harness", place, context)
            prepared.append(Request(text, plan, sampling_of(settings), seed=seed))
        return [
            answer.text
            for start in range(0, len(prepared), BLOCK)
            for answer in self.opened.engine.generate(prepared[start : start + BLOCK])
        ]

    def _scored(
        self, context: Sequence[int], answer: Sequence[int], plan: Plan
    ) -> tuple[float, bool]:
        if not answer:
            return 0.0, True
        opened = self.opened
        pooled: Float[Tensor, "tokens vocab"] = plan_distributions(
            opened.base,
            opened.bank,
            plan=plan,
            item=Scored(tuple(context), tuple(answer)),
            controllers=opened.controllers if plan.pool.controller else None,
        )
        wanted = torch.tensor(answer, device=pooled.device)
        total = pooled.gather(1, wanted.unsqueeze(1)).double().sum()
        return float(total), bool((pooled.argmax(dim=1) == wanted).all())


def windows(n_tokens: int, *, size: int) -> list[tuple[int, int, int]]:
    """`(start, first, end)`: read from `start`, score `first` to `end`; every token but one once.

    A window reads `size` tokens and scores what no window before it did; the last one reads as much
    before its tokens as it can.

    Example:
        >>> windows(11, size=4)  # a prefix and ten tokens
        [(0, 1, 5), (4, 5, 9), (6, 9, 11)]
    """
    parts: list[tuple[int, int, int]] = []
    first = 1
    while first < n_tokens:
        end = min(first + size, n_tokens)
        parts.append((max(end - 1 - size, 0), first, end))
        first = end
    return parts


def sampling_of(settings: Mapping[str, Any]) -> SamplingParams:
    """The harness's settings of a continuation: greedy unless it is to be sampled.

    Raises:
        InvalidInputError: a number is out of range.
    """
    until = settings.get("until") or ()
    stop = (until,) if isinstance(until, str) else tuple(str(one) for one in until)
    is_drawn = bool(settings.get("do_sample", float(settings.get("temperature") or 0.0) > 0.0))
    limit = next(
        (settings[name] for name in ("max_gen_toks", "max_new_tokens") if settings.get(name)),
        MAX_NEW_TOKENS,
    )
    return SamplingParams(
        temperature=float(settings.get("temperature") or 1.0) if is_drawn else 0.0,
        top_k=int(settings.get("top_k") or 0) if is_drawn else 0,
        top_p=float(settings.get("top_p") or 1.0) if is_drawn else 1.0,
        max_tokens=int(limit),
        stop=tuple(text for text in stop if text),
    )
