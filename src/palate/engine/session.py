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
from palate.engine.batch import Batch, Live
from palate.engine.control import Controller, ControlRun
from palate.engine.implicit import redraw, require_untruncated
from palate.engine.pool import RowMap, pool_coefficients, pool_log_probs
from palate.engine.prefill import Reader, Reading
from palate.engine.sample import draw, uniforms
from palate.engine.stream import TextStream
from palate.models.chat import encode_prompt
from palate.models.load import Base

FAILED = "failed"
JOIN_SHARE = 0.25  # of the rows that must be free before waiting requests are read

Drawn = list[tuple[Live, Token]]


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
    reading: Reading
    controllers: Mapping[str, Controller]


class Session:
    """A running batch that requests join and leave at every step."""

    def __init__(self, parts: Parts) -> None:
        """Start with nobody."""
        self._parts = parts
        self._reader = Reader(parts.base, parts.bank, parts.reading)
        self._waiting: deque[Live] = deque()
        self._batch: Batch | None = None
        self._runs: dict[str, ControlRun] = {}
        self._count = 0

    @property
    def n_waiting(self) -> int:
        """Requests that have not been read."""
        return len(self._waiting)

    @property
    def n_live(self) -> int:
        """Requests that are being answered."""
        return len(self._batch.lives) if self._batch is not None else 0

    @property
    def n_rows(self) -> int:
        """Rows of the running batch."""
        return self._batch.n_rows if self._batch is not None else 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return self._batch is None and not self._waiting

    def submit(self, request: Request, *, is_traced: bool = False, n_top: int = 0) -> Live:
        """Let a request wait for its turn.

        Args:
            request: What is asked.
            is_traced: Keep what every row says of every token.
            n_top: Most probable tokens to keep at every step.

        Raises:
            InvalidInputError: the plan does not fit the bank, or needs more than the engine holds.
        """
        live = self._admit(request)
        live.is_traced, live.n_top = is_traced, n_top
        self._count += 1
        self._waiting.append(live)
        return live

    def cancel(self, live: Live) -> None:
        """Let go of a request at once; one that has ended is no error."""
        if live in self._waiting:
            self._waiting.remove(live)
        elif self._batch is not None:
            self._batch = self._batch.without({live.index})

    def account(self, live: Live) -> None:
        """What is to be said of how an answer was executed: nothing, it was exact."""
        del live

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
            batch, rows = _without(batch, rows, {live.index for live, _ in broken})
            if batch is None:
                self._batch = None
                return broken
            log_probs = pool_log_probs(batch.logits, rows)
        drawn = self._draw(batch, rows, log_probs)
        ended = {live.index for live, token in drawn if token.finish}
        self._reader.keep(batch, ended)
        self._batch = batch.without(ended)
        if self._batch is not None:
            self._reader.advance(self._batch)
        return broken + drawn

    def _admit(self, request: Request) -> Live:
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
        live = Live(
            index=self._count,
            request=request,
            plan=plan,
            prompt=prompt,
            contexts=contexts,
            uniforms=uniforms(seed=request.seed, n_tokens=request.sampling.max_tokens),
            text=TextStream(backend, stop=request.sampling.stop),
            lanes=_lanes(parts.bank, plan, contexts),
        )
        if not self._has_room([live]):
            raise InvalidInputError(
                f"The request needs {live.n_lanes} x {live.most_tokens} positions, but the "
                f"engine holds at most {parts.max_num_batched_tokens}; shorten the prompt or the answer."
            )
        return live

    def _has_room(self, lives: Sequence[Live]) -> bool:
        """Whether rows and positions suffice for these requests to run together to their ends."""
        n_rows = sum(len(live.plan.rows) for live in lives)
        n_lanes = sum(live.n_lanes for live in lives)
        width = max(live.most_tokens for live in lives)
        limit = self._parts.max_num_batched_tokens
        return n_rows <= self._parts.max_num_seqs and (limit is None or n_lanes * width <= limit)

    def _join(self) -> Batch | None:
        batch = self._batch
        if not self._waiting:
            return batch
        if batch is None:
            self._runs = {name: c.start() for name, c in self._parts.controllers.items()}
        elif self._parts.max_num_seqs - batch.n_rows < JOIN_SHARE * self._parts.max_num_seqs:
            return batch
        running = list(batch.lives) if batch is not None else []
        fresh: list[Live] = []
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
            sampling=[live.request.sampling for live in batch.lives],
            prompts=[live.contexts[0] for live in batch.lives],
            answers=[live.tokens for live in batch.lives],
            uniform=torch.tensor([live.uniforms[len(live.tokens)] for live in batch.lives]),
        )
        if any(live.plan.pool.is_implicit for live in batch.lives):
            tokens = redraw(
                tokens, batch.lives, logits=batch.logits, log_probs=log_probs, rows=rows
            )
        chosen = log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist()
        if any(live.is_traced for live in batch.lives):
            _keep_rows(batch, rows, tokens)
        if any(live.n_top for live in batch.lives):
            _keep_top(batch, log_probs)
        stop_ids = self._parts.base.stop_ids
        return [
            (live, live.take(token, log_prob, stop_ids=stop_ids))
            for live, token, log_prob in zip(batch.lives, tokens.tolist(), chosen, strict=True)
        ]


def _lanes(bank: AdapterBank, plan: Plan, contexts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The pass that each row's logits come from: rows share one if only the head differs."""
    lanes: dict[tuple[tuple[float, ...], tuple[int, ...]], int] = {}
    both = zip(plan.rows, contexts, strict=True)
    return tuple(
        lanes.setdefault((bank.before_head(row.coefficients), context), len(lanes))
        for row, context in both
    )


def _broken(batch: Batch, rows: RowMap, error: InvalidInputError) -> Drawn:
    """The requests whose own distribution is not finite, each with its last token."""
    found: Drawn = []
    for place, live in enumerate(batch.lives):
        own = rows.owner == place
        alone = RowMap(
            rows.owner[own] - place, rows.coefficient[own], rows.is_linear[place : place + 1]
        )
        try:
            pool_log_probs(batch.logits[own], alone)
        except InvalidInputError:
            live.error = str(error)
            found.append((live, Token(live.index, -1, live.text.flush(), 0.0, FAILED)))
    return found


def _without(batch: Batch, rows: RowMap, ended: set[int]) -> tuple[Batch | None, RowMap]:
    """Batch and row map without some requests, before a token was drawn."""
    stays = torch.tensor([live.index not in ended for live in batch.lives]).to(rows.owner.device)
    kept = rows.coefficient[stays[rows.owner]]
    left = batch.without(ended)
    if left is None:
        return None, rows
    return left, RowMap(left.rows.owner, kept, left.rows.is_linear)


def _keep_rows(batch: Batch, rows: RowMap, tokens: Tensor) -> None:
    """Note in each traced request what its rows said of the token that was drawn."""
    log_probs = torch.log_softmax(batch.logits.float(), dim=-1)
    own = log_probs.gather(1, tokens[rows.owner].unsqueeze(1)).squeeze(1)
    sizes = [len(live.plan.rows) for live in batch.lives]
    both = zip(own.split(sizes), rows.coefficient.split(sizes), strict=True)
    for live, (said, shares) in zip(batch.lives, both, strict=True):
        if live.is_traced:
            live.row_log_probs.append(said.tolist())
            live.shares.append(shares.tolist())


def _keep_top(batch: Batch, log_probs: Float[Tensor, "requests vocab"]) -> None:
    """Note the most probable tokens in each request that wants them."""
    n_top = min(max(live.n_top for live in batch.lives), log_probs.shape[1])
    values, ids = log_probs.topk(n_top, dim=-1)
    pairs = zip(batch.lives, ids.tolist(), values.tolist(), strict=True)
    for live, tokens, said in pairs:
        if live.n_top:
            live.top.append(list(zip(tokens, said, strict=True))[: live.n_top])


@torch.inference_mode()
def _controlled(batch: Batch, runs: Mapping[str, ControlRun]) -> RowMap:
    """The row map with every controller's shares for the next token."""
    groups: dict[str, list[Live]] = {}
    for live in batch.lives:
        if live.plan.pool.controller is not None:
            groups.setdefault(live.plan.pool.controller, []).append(live)
    if not groups:
        return batch.rows
    shares_of: dict[int, Tensor] = {}
    for name, lives in groups.items():
        shares = runs[name].shares(lives)
        shares_of |= {live.index: row for live, row in zip(lives, shares, strict=True)}
    parts = [
        shares_of.get(live.index, torch.tensor(pool_coefficients(live.plan))).float()
        for live in batch.lives
    ]
    coefficient = torch.cat([part.to(batch.logits.device) for part in parts])
    return RowMap(batch.rows.owner, coefficient, batch.rows.is_linear)
