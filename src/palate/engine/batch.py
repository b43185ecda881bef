"""The running batch: live requests, their rows, and the rows' next-token logits."""

from collections.abc import Container
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from palate.core.errors import PalateError
from palate.core.plan import Plan
from palate.core.protocols import Request, Token
from palate.engine.pool import RowMap
from palate.engine.stream import TextStream
from palate.models.cache import RowCache


@dataclass(eq=False)
class RunningRequest:
    """A request that is being answered.

    Attributes:
        index: Place among the requests that were handed in.
        request: What was asked.
        plan: Its plan in normal form.
        prompt: Token ids of the request's prompt.
        contexts: Token ids each row reads first.
        lanes: Which of the request's passes each row's logits come from, counted from zero.
        uniforms: `[max_tokens]`, the numbers that decide its tokens.
        text: Text so far.
        n_reused: Tokens of the prompt that were known and not read again.
        n_parts: Parts in which the prompt was read before the rest.
        tokens: Token ids so far.
        log_probs: Pooled log-probability of each.
        is_traced: Whether what every row says is kept.
        n_top: How many of the most probable tokens are kept.
        shares: Per token, the rows' pool coefficients; kept when traced.
        row_log_probs: Per token, its log-probability under each row; kept when traced.
        top: Per token, the most probable ones with their pooled log-probabilities.
        error: Why the request broke; empty while it did not.
        failure: The same as an error, where it is not the request's own fault.
        n_proposals: Tokens proposed so far, where they are drawn by rejection.
        n_fallbacks: Tokens taken from the pooled distribution after too many proposals.
    """

    index: int
    request: Request
    plan: Plan
    prompt: tuple[int, ...]
    contexts: list[tuple[int, ...]]
    uniforms: Float[ndarray, " tokens"]
    text: TextStream
    sequences: tuple[int, ...] = (0,)
    n_cached_tokens: int = 0
    n_chunks: int = 0
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    is_traced: bool = False
    n_top: int = 0
    shares: list[list[float]] = field(default_factory=list)
    row_log_probs: list[list[float]] = field(default_factory=list)
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    error: str = ""
    failure: PalateError | None = None
    n_proposals: int = 0
    n_fallbacks: int = 0

    @property
    def n_sequences(self) -> int:
        """Passes of the model for each token."""
        return max(self.sequences) + 1

    @property
    def most_tokens(self) -> int:
        """Tokens that the longest row may come to hold."""
        return max(len(context) for context in self.contexts) + self.request.sampling.max_tokens

    def take(self, token: int, log_prob: float, *, stop_ids: Container[int]) -> Token:
        """Add a drawn token to the answer; what is to be emitted, with why it ended if it did."""
        self.tokens.append(token)
        self.log_probs.append(log_prob)
        is_end = token in stop_ids
        piece = "" if is_end else self.text.push(token)
        finish = None
        if is_end or self.text.is_stopped:
            finish = "stop"
        elif len(self.tokens) >= self.request.sampling.max_tokens:
            finish = "length"
        if finish is not None:
            piece += self.text.flush()
        return Token(self.index, token, piece, log_prob, finish)


class Batch:
    """Live requests whose rows lie one after another, and their lanes in the cache likewise.

    Attributes:
        running: The requests.
        cache: What their lanes have read.
        logits: `[rows, vocab]`, for the next token.
        rows: Which request each row belongs to.
        lanes: `[rows]`, which row of the cache each row's logits come from; `None` where each has
            its own.
    """

    def __init__(
        self,
        running_requests: list[RunningRequest],
        cache: RowCache,
        logits: Float[Tensor, "rows vocab"],
    ) -> None:
        """Take over requests that have been read."""
        self.running_requests = running_requests
        self.cache = cache
        self.logits = logits
        self.rows = RowMap.of([running.plan for running in running_requests], device=logits.device)
        self.sequences = _sequences(running_requests)

    @property
    def n_rows(self) -> int:
        """Rows of all requests."""
        return len(self.rows.owner)

    def coefficients(self) -> list[tuple[float, ...]]:
        """`[rows][experts]`."""
        return [row.coefficients for running in self.running_requests for row in running.plan.rows]

    def last_tokens(self) -> list[list[int]]:
        """`[lanes][1]`: the token each lane reads next."""
        return [
            [running.tokens[-1]]
            for running in self.running_requests
            for _ in range(running.n_sequences)
        ]

    def joined(self, other: "Batch") -> "Batch":
        """This batch with the other's requests below."""
        self.cache.join(other.cache)
        return Batch(
            self.running_requests + other.running_requests,
            self.cache,
            torch.cat([self.logits, other.logits]),
        )

    def without(self, ended: set[int]) -> "Batch | None":
        """The batch without the requests of these indices, or `None` if none is left."""
        if not ended:
            return self
        kept = [running for running in self.running_requests if running.index not in ended]
        if not kept:
            return None
        stays = [running.index not in ended for running in self.running_requests]
        rows, sequences = (
            torch.tensor(
                [place for place, owner in enumerate(owners) if stays[owner]],
                device=self.logits.device,
            )
            for owners in (
                [i for i, running in enumerate(self.running_requests) for _ in running.plan.rows],
                [
                    i
                    for i, running in enumerate(self.running_requests)
                    for _ in range(running.n_sequences)
                ],
            )
        )
        self.cache.select(sequences)
        return Batch(kept, self.cache, self.logits[rows])


def _sequences(running_requests: list[RunningRequest]) -> list[int] | None:
    """Each row's lane among those of all requests."""
    found: list[int] = []
    first = 0
    for running in running_requests:
        found.extend(first + sequence for sequence in running.sequences)
        first += running.n_sequences
    return None if first == len(found) else found
