"""A request that an engine is answering."""

import math
from collections.abc import Container
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError, PalateError
from palate.core.plan import Plan
from palate.core.protocols import Constraint, Request, Token
from palate.engine.sample import uniforms
from palate.engine.stream import TextStream
from palate.models.chat import encode_prompt
from palate.models.load import Base

FAILED = "failed"  # finish of a request that ended with an error
EMPTY = np.zeros(0)


@dataclass(eq=False)
class RunningRequest:
    """A request under way; every engine keeps the same record of it."""

    index: int  # place among the requests of its session
    request: Request  # as it was added
    plan: Plan  # in normal form, as it is executed
    prompt: tuple[int, ...]  # token ids of the prompt
    contexts: list[tuple[int, ...]]  # token ids that each row is conditioned on
    text: TextStream  # so far
    # they decide its tokens
    uniforms: Float[np.ndarray, " tokens"] = field(default_factory=lambda: EMPTY)
    constraint: Constraint | None = None  # after the tokens so far
    max_answer_tokens: float = math.inf  # most tokens of the answer that the base can read
    is_traced: bool = False  # whether `shares` and `row_log_probs` are recorded
    n_top: int = 0  # how many of the most probable tokens are recorded in `top`
    sequences: tuple[int, ...] = (0,)  # the request's sequence that each row's logits come from
    n_cached_tokens: int = 0  # tokens of the prompt that came from the prefix cache
    n_chunks: int = 0  # chunks of the prompt that were prefilled before the rest
    tokens: list[int] = field(default_factory=list)  # token ids so far
    log_probs: list[float] = field(default_factory=list)  # of each token, pooled, nats
    # of all tokens as they were sampled, nats; NaN where not known
    sampled_log_prob: float = math.nan
    shares: list[list[float]] = field(default_factory=list)  # per token, rows' pool coefficients
    row_log_probs: list[list[float]] = field(default_factory=list)  # per token, under each row
    # per token, the most probable tokens with their pooled log-probabilities
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    error: PalateError | None = None  # why the request failed
    n_proposals: int = 0  # tokens proposed so far, where they are sampled by rejection
    n_fallbacks: int = 0  # tokens sampled from the pooled distribution after too many proposals

    @classmethod
    def start(
        cls, request: Request, base: Base, *, index: int, is_traced: bool = False, n_top: int = 0
    ) -> "RunningRequest":
        """The record of a request whose first token has not been sampled.

        Raises:
            InvalidInputError: the prompt has no tokens, or a bias is for a token that is none.
        """
        last = base.n_vocab - 1
        for token in set(request.logit_bias).difference(range(last + 1)):
            message = f"The logit_bias is for the token {token}, but ids go from 0 to {last}"
            raise InvalidInputError(f"{message}; leave it out.")
        plan, prompt = request.plan.normal_form(), request.tokens
        prompt = prompt or tuple(encode_prompt(base, request.prompt))
        contexts = [prompt if row.context is None else row.context for row in plan.rows]
        return cls(
            index=index,
            request=request,
            plan=plan,
            prompt=prompt,
            contexts=contexts,
            max_answer_tokens=max((base.n_positions or math.inf) - max(map(len, contexts)), 1),
            text=TextStream(base.tokenizer, stop=request.sampling.stop, before=prompt),
            uniforms=uniforms(seed=request.seed, n_tokens=request.sampling.max_tokens),
            constraint=request.constraint and request.constraint.copy(),
            is_traced=is_traced,
            n_top=n_top,
        )

    @property
    def is_constrained(self) -> bool:
        """Whether tokens are sampled from another distribution than the pooled one."""
        return self.constraint is not None or bool(self.request.logit_bias)

    @property
    def n_sequences(self) -> int:
        """Sequences in the key-value cache: forward passes for each token."""
        return max(self.sequences) + 1

    @property
    def texts(self) -> list[tuple[int, ...]]:
        """Token ids that each row has to read: its context and the answer so far."""
        return [context + tuple(self.tokens) for context in self.contexts]

    @property
    def most_tokens(self) -> int:
        """Tokens that the longest row may come to have."""
        return max(len(context) for context in self.contexts) + self.request.sampling.max_tokens

    def take(self, token: int, log_prob: float, *, stop_ids: Container[int]) -> Token:
        """Add a sampled token to the answer; the token to emit, with its finish if it is last."""
        self.tokens.append(token)
        self.log_probs.append(log_prob)
        if self.constraint is not None:
            self.constraint.take(token)
        is_end = token in stop_ids
        piece = "" if is_end else self.text.push(token)
        finish = None
        if is_end or self.text.is_stopped:
            finish = "stop"
        elif len(self.tokens) >= min(self.request.sampling.max_tokens, self.max_answer_tokens):
            finish = "length"
        if finish is not None:
            piece += self.text.flush()  # which may show a stop string in what was held back
            finish = "stop" if self.text.is_stopped else finish
        return Token(self.index, token, piece, log_prob, finish)

    def fail(self, error: Exception) -> Token:
        """End the request with an error; the token to emit."""
        if not isinstance(error, PalateError):
            refused = InvalidInputError(
                f"The engine cannot answer this request: a pass with it ended with "
                f"{type(error).__name__}; change its prompt or its experts."
            )
            refused.__cause__ = error
            error = refused
        self.error = error
        return Token(self.index, -1, "", 0.0, FAILED)
