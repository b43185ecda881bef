"""The engine: executes batches of plans on one base and one adapter bank.

Every request contributes the rows of its plan to one running batch: different users, methods and
coefficients share
each forward pass. Rows are read once (equal rows of a batch share their reading), decoded with a
key-value cache,
pooled per request, and every row of a request receives the token that was drawn. Requests join when
rows are
free and leave when they end, so a long answer does not hold up short ones.

A request's answer depends on its own prompt, plan, sampling and seed. What else is in the batch
changes
log-probabilities only by rounding (about 1e-6 in float32).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import InvalidInputError
from palate.core.protocols import Request, Token
from palate.core.types import Completion
from palate.engine.bank import AdapterBank
from palate.engine.batch import RunningRequest
from palate.engine.control import Controller
from palate.engine.prefill import PrefillSettings
from palate.engine.session import FAILED, Parts, Session
from palate.models.load import Base

DEFAULT_PREFILL = PrefillSettings()


@dataclass(frozen=True, eq=False)
class Traced:
    """An answer with what every row said of it.

    Attributes:
        completion: The answer.
        shares: `[tokens, rows]`, pool coefficients with which each token was drawn.
        row_log_probs: `[tokens, rows]`, log-probability of each token under each row.
    """

    completion: Completion
    shares: Float[ndarray, "tokens rows"]
    row_log_probs: Float[ndarray, "tokens rows"]


class LocalEngine:
    """Executes plans in this process.

    Attributes:
        base: The frozen base.
        bank: The experts; plans have one coefficient for each.
        max_num_seqs: Most rows that run at a time.
        max_num_batched_tokens: Most lanes times tokens that run at a time; `None` for no limit. A request
            has a lane for each of its rows, but one for all that differ in the unembedding alone.
        reading: How prompts are read; by default nothing of them is kept for later ones.
    """

    def __init__(
        self,
        base: Base,
        bank: AdapterBank,
        *,
        max_num_seqs: int = 128,
        max_num_batched_tokens: int | None = None,
        prefill: PrefillSettings = DEFAULT_PREFILL,
        controllers: Mapping[str, Controller] | None = None,
    ) -> None:
        """Keep the parts.

        Raises:
            InvalidInputError: no rows or positions are allowed.
        """
        if max_num_seqs < 1:
            raise InvalidInputError(
                f"The engine's max_num_seqs is {max_num_seqs}; give at least 1."
            )
        if max_num_batched_tokens is not None and max_num_batched_tokens < 1:
            raise InvalidInputError(
                f"The engine's max_num_batched_tokens is {max_num_batched_tokens}; give at least 1."
            )
        self.base = base
        self.bank = bank
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.prefill = prefill
        self.controllers = dict(controllers or {})

    def open_session(self) -> Session:
        """An open-ended run; sessions of one engine take turns, never step at the same time."""
        return Session(
            Parts(
                self.base,
                self.bank,
                self.max_num_seqs,
                self.max_num_batched_tokens,
                self.prefill,
                self.controllers,
            )
        )

    def require_ready(self) -> None:
        """Return: an engine in this process is there as long as the process."""

    def close(self) -> None:
        """Let go of what is elsewhere: nothing."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order.

        Raises:
            InvalidInputError: a plan does not fit the bank, or a request needs more than `max_num_seqs`
                rows.
        """
        return [completion_of(running, end) for running, end in self._finished(requests)]

    def trace(self, requests: Sequence[Request]) -> list[Traced]:
        """As `generate`, with every row's log-probability of every token.

        These numbers are all that training a controller needs of the experts.

        Raises:
            InvalidInputError: as `generate`.
        """
        return [
            Traced(
                completion_of(running, end),
                np.array(running.shares, dtype=np.float64),
                np.array(running.row_log_probs, dtype=np.float64),
            )
            for running, end in self._finished(requests, is_traced=True)
        ]

    def stream(self, requests: Sequence[Request]) -> Iterator[Token]:
        """Tokens of all requests as they are drawn; each request's last token says why it ended.

        Raises:
            InvalidInputError: a plan does not fit the bank, or a request needs more than `max_num_seqs`
                rows.
        """
        for _, token in self._run(requests):
            yield token

    def _finished(
        self, requests: Sequence[Request], *, is_traced: bool = False
    ) -> list[tuple[RunningRequest, Token]]:
        """Every request with its last token, in order."""
        ends = {
            running.index: (running, token)
            for running, token in self._run(requests, is_traced=is_traced)
            if token.finish
        }
        return [ends[index] for index in range(len(requests))]

    def _run(
        self, requests: Sequence[Request], *, is_traced: bool = False
    ) -> Iterator[tuple[RunningRequest, Token]]:
        session = self.open_session()
        for request in requests:
            session.add_request(request, is_traced=is_traced)
        while not session.is_idle:
            drawn = session.step()
            for running, token in drawn:
                if token.finish == FAILED:
                    raise InvalidInputError(running.error)
            yield from drawn


def completion_of(running: RunningRequest, end: Token) -> Completion:
    """The answer to a request, given its last token."""
    return Completion(
        prompt=running.request.prompt,
        text=running.text.text,
        tokens=tuple(running.tokens),
        log_probs=tuple(running.log_probs),
        finish="stop" if end.finish == "stop" else "length",
    )
