"""An open-ended run of the engine: requests come and go while others are being answered.

Every step reads the requests for which there is room, draws one token for each live request, and
lets go of those that ended. A request whose distribution is not finite ends alone, with the finish
`failed`; the others do not notice.

A session belongs to one thread.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.protocols import Request, Token
from palate.engine.bank import AdapterBank
from palate.engine.batch import Batch, RunningRequest
from palate.engine.control import Controller, ControlRun
from palate.engine.implicit import redraw, require_untruncated
from palate.engine.pool import RowMap, pool_coefficients, pool_log_probs
from palate.engine.prefill import Reader, PrefillSettings
from palate.engine.sample import draw, uniforms
from palate.engine.stream import TextStream
from palate.models.chat import encode_prompt
from palate.models.load import Base

FAILED = "failed"
JOIN_SHARE = 0.25  # of the rows that must be free before waiting requests are read

Drawn = list[tuple[RunningRequest, Token]]


@dataclass(frozen=True, eq=False)
class Parts:
    """What a session runs on.

    Attributes:
        base: The frozen base.
        bank: The experts.
        max_num_seqs: Most rows that run at a time.
        max_num_batched_tokens: Most lanes times tokens that the key-value cache may come to hold.
        reading: How prompts are read.
        controllers: By name.
    """

    base: Base
    bank: AdapterBank
    max_num_seqs: int
    max_num_batched_tokens: int | None
    prefill: PrefillSettings
    controllers: Mapping[str, Controller]


class Session:
    """A running batch that requests join and leave at every step."""

    def __init__(self, parts: Parts) -> None:
        """Start with nobody."""
        self._parts = parts
        self._reader = Reader(parts.base, parts.bank, parts.prefill)
        self._waiting: deque[RunningRequest] = deque()
        self._batch: Batch | None = None
        self._runs: dict[str, ControlRun] = {}
        self._count = 0

    @property
    def n_waiting(self) -> int:
        """Requests that have not been read."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Requests that are being answered."""
        return len(self._batch.running_requests) if self._batch is not None else 0

    @property
    def n_rows(self) -> int:
        """Rows of the running batch."""
        return self._batch.n_rows if self._batch is not None else 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return self._batch is None and not self._waiting

    def add_request(
        self, request: Request, *, is_traced: bool = False, n_top: int = 0
    ) -> RunningRequest:
        """Let a request wait for its turn.

        Args:
            request: What is asked.
            is_traced: Keep what every row says of every token.
            n_top: Most probable tokens to keep at every step.

        Raises:
            InvalidInputError: the plan does not fit the bank, or needs more than the engine holds.
        """
        running = self._admit(request)
        running.is_traced, running.n_top = is_traced, n_top
        self._count += 1
        self._waiting.append(running)
        return running

    def abort_request(self, running: RunningRequest) -> None:
        """Let go of a request at once; one that has ended is no error."""
        if running in self._waiting:
            self._waiting.remove(running)
        elif self._batch is not None:
            self._batch = self._batch.without({running.index})

    def account(self, running: RunningRequest) -> None:
        """What is to be said of how an answer was executed: nothing, it was exact."""
        del running

    def step(self) -> Drawn:
        """One token for every live request; the last token of a request says why it ended."""
        batch = self._join()
        if batch is None:
            return []
        rows = _controlled(batch, self._runs)
        broken: Drawn = []
        try:
            log_probs = pool_log_probs(batch.logits, rows)
        except InvalidInputError as error:
            broken = _broken(batch, rows, error)
            batch, rows = _without(batch, rows, {running.index for running, _ in broken})
            if batch is None:
                self._batch = None
                return broken
            log_probs = pool_log_probs(batch.logits, rows)
        drawn = self._draw(batch, rows, log_probs)
        ended = {running.index for running, token in drawn if token.finish}
        self._reader.keep(batch, ended)
        self._batch = batch.without(ended)
        if self._batch is not None:
            self._reader.advance(self._batch)
        return broken + drawn

    def _admit(self, request: Request) -> RunningRequest:
        parts, plan = self._parts, request.plan.normal_form()
        if plan.n_experts != parts.bank.n_experts:
            raise InvalidInputError(
                f"The plan has {plan.n_experts} coefficients a row, but the bank has "
                f"{parts.bank.n_experts} experts; give one coefficient per expert."
            )
        if len(plan.rows) > parts.max_num_seqs:
            raise InvalidInputError(
                f"The plan has {len(plan.rows)} rows, but the engine runs at most {parts.max_num_seqs}."
            )
        controller = plan.pool.controller
        if controller is not None and controller not in parts.controllers:
            raise InvalidInputError(
                f"The plan names the controller {controller!r}, which is not loaded."
            )
        if plan.pool.is_implicit:
            require_untruncated(request.sampling)
        prompt = tuple(encode_prompt(parts.base, request.prompt))
        contexts = [prompt if row.context is None else row.context for row in plan.rows]
        backend: Any = getattr(parts.base.tokenizer, "backend_tokenizer", None)
        running = RunningRequest(
            index=self._count,
            request=request,
            plan=plan,
            prompt=prompt,
            contexts=contexts,
            uniforms=uniforms(seed=request.seed, n_tokens=request.sampling.max_tokens),
            text=TextStream(backend, stop=request.sampling.stop),
            sequences=_sequences(parts.bank, plan, contexts),
        )
        if not self._has_room([running]):
            raise InvalidInputError(
                f"The request needs {running.n_sequences} x {running.most_tokens} positions, but the "
                f"engine holds at most {parts.max_num_batched_tokens}; shorten the prompt or the answer."
            )
        return running

    def _has_room(self, running_requests: Sequence[RunningRequest]) -> bool:
        """Whether rows and positions suffice for these requests to run together to their ends."""
        n_rows = sum(len(running.plan.rows) for running in running_requests)
        n_sequences = sum(running.n_sequences for running in running_requests)
        width = max(running.most_tokens for running in running_requests)
        limit = self._parts.max_num_batched_tokens
        return n_rows <= self._parts.max_num_seqs and (
            limit is None or n_sequences * width <= limit
        )

    def _join(self) -> Batch | None:
        batch = self._batch
        if not self._waiting:
            return batch
        if batch is None:
            self._runs = {name: c.start() for name, c in self._parts.controllers.items()}
        elif self._parts.max_num_seqs - batch.n_rows < JOIN_SHARE * self._parts.max_num_seqs:
            return batch
        running = list(batch.running_requests) if batch is not None else []
        fresh: list[RunningRequest] = []
        while self._waiting and self._has_room([*running, *fresh, self._waiting[0]]):
            if running and self._reader.read_part(self._waiting[0]):
                break  # the others' next tokens first
            fresh.append(self._waiting.popleft())
        if fresh:
            read = self._reader.read(fresh)
            self._batch = read if batch is None else batch.joined(read)
        return self._batch

    @torch.inference_mode()
    def _draw(
        self, batch: Batch, rows: RowMap, log_probs: Float[Tensor, "requests vocab"]
    ) -> Drawn:
        tokens = draw(
            log_probs,
            sampling=[running.request.sampling for running in batch.running_requests],
            prompts=[running.contexts[0] for running in batch.running_requests],
            answers=[running.tokens for running in batch.running_requests],
            uniform=torch.tensor(
                [running.uniforms[len(running.tokens)] for running in batch.running_requests]
            ),
        )
        if any(running.plan.pool.is_implicit for running in batch.running_requests):
            tokens = redraw(
                tokens, batch.running_requests, logits=batch.logits, log_probs=log_probs, rows=rows
            )
        chosen = log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist()
        if any(running.is_traced for running in batch.running_requests):
            _keep_rows(batch, rows, tokens)
        if any(running.n_top for running in batch.running_requests):
            _keep_top(batch, log_probs)
        stop_ids = self._parts.base.stop_ids
        return [
            (running, running.take(token, log_prob, stop_ids=stop_ids))
            for running, token, log_prob in zip(
                batch.running_requests, tokens.tolist(), chosen, strict=True
            )
        ]


def _sequences(
    bank: AdapterBank, plan: Plan, contexts: Sequence[tuple[int, ...]]
) -> tuple[int, ...]:
    """The pass that each row's logits come from: rows share one if only the head differs."""
    sequences: dict[tuple[tuple[float, ...], tuple[int, ...]], int] = {}
    both = zip(plan.rows, contexts, strict=True)
    return tuple(
        sequences.setdefault((bank.before_head(row.coefficients), context), len(sequences))
        for row, context in both
    )


def _broken(batch: Batch, rows: RowMap, error: InvalidInputError) -> Drawn:
    """The requests whose own distribution is not finite, each with its last token."""
    found: Drawn = []
    for place, running in enumerate(batch.running_requests):
        own = rows.owner == place
        alone = RowMap(
            rows.owner[own] - place, rows.coefficient[own], rows.is_linear[place : place + 1]
        )
        try:
            pool_log_probs(batch.logits[own], alone)
        except InvalidInputError:
            running.error = str(error)
            found.append((running, Token(running.index, -1, running.text.flush(), 0.0, FAILED)))
    return found


def _without(batch: Batch, rows: RowMap, ended: set[int]) -> tuple[Batch | None, RowMap]:
    """Batch and row map without some requests, before a token was drawn."""
    stays = torch.tensor([running.index not in ended for running in batch.running_requests]).to(
        rows.owner.device
    )
    kept = rows.coefficient[stays[rows.owner]]
    left = batch.without(ended)
    if left is None:
        return None, rows
    return left, RowMap(left.rows.owner, kept, left.rows.is_linear)


def _keep_rows(batch: Batch, rows: RowMap, tokens: Tensor) -> None:
    """Note in each traced request what its rows said of the token that was drawn."""
    log_probs = torch.log_softmax(batch.logits.float(), dim=-1)
    own = log_probs.gather(1, tokens[rows.owner].unsqueeze(1)).squeeze(1)
    sizes = [len(running.plan.rows) for running in batch.running_requests]
    both = zip(own.split(sizes), rows.coefficient.split(sizes), strict=True)
    for running, (said, shares) in zip(batch.running_requests, both, strict=True):
        if running.is_traced:
            running.row_log_probs.append(said.tolist())
            running.shares.append(shares.tolist())


def _keep_top(batch: Batch, log_probs: Float[Tensor, "requests vocab"]) -> None:
    """Note the most probable tokens in each request that wants them."""
    n_top = min(max(running.n_top for running in batch.running_requests), log_probs.shape[1])
    values, ids = log_probs.topk(n_top, dim=-1)
    pairs = zip(batch.running_requests, ids.tolist(), values.tolist(), strict=True)
    for running, tokens, said in pairs:
        if running.n_top:
            running.top.append(list(zip(tokens, said, strict=True))[: running.n_top])


@torch.inference_mode()
def _controlled(batch: Batch, runs: Mapping[str, ControlRun]) -> RowMap:
    """The row map with every controller's shares for the next token."""
    groups: dict[str, list[RunningRequest]] = {}
    for running in batch.running_requests:
        if running.plan.pool.controller is not None:
            groups.setdefault(running.plan.pool.controller, []).append(running)
    if not groups:
        return batch.rows
    shares_of: dict[int, Tensor] = {}
    for name, running_requests in groups.items():
        shares = runs[name].shares(running_requests)
        shares_of |= {
            running.index: row for running, row in zip(running_requests, shares, strict=True)
        }
    parts = [
        shares_of.get(running.index, torch.tensor(pool_coefficients(running.plan))).float()
        for running in batch.running_requests
    ]
    coefficient = torch.cat([part.to(batch.logits.device) for part in parts])
    return RowMap(batch.rows.owner, coefficient, batch.rows.is_linear)
