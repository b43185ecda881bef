"""The engine: executes batches of plans on one base and one adapter bank.

Every request contributes the rows of its plan to one running batch: different people, methods and
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

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from transformers import DynamicCache

from palate.core.errors import InvalidInputError
from palate.core.protocols import Request, Token
from palate.core.types import Completion
from palate.models.bank import AdapterBank
from palate.models.batch import Batch, Live
from palate.models.cache import RowCache
from palate.models.chat import encode_prompt
from palate.models.load import Base
from palate.models.pool import RowMap, pool_coefficients, pool_log_probs
from palate.models.sample import draw, uniforms
from palate.models.stream import TextStream

JOIN_SHARE = 0.25  # of the rows that must be free before waiting requests are read


class ControlRun(Protocol):
    """One controller during one run of the engine; it may keep what it has read of each request."""

    def shares(self, lives: Sequence[Live]) -> Sequence[Float[Tensor, " rows"]]:
        """For the next token of each request one share per row, on the simplex.

        It is called once per step with every live request under this controller. A request that
        was not there before has joined, with no token drawn; one that is missing has ended; all
        others have exactly one token more than at the last call.
        """
        ...


class Controller(Protocol):
    """Gives the linear coefficients of controlled requests, token by token."""

    def start(self) -> ControlRun:
        """What serves one run of the engine; runs do not know each other."""
        ...


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
        max_rows: Most rows that run at a time.
    """

    def __init__(
        self,
        base: Base,
        bank: AdapterBank,
        *,
        max_rows: int = 128,
        controllers: Mapping[str, Controller] | None = None,
    ) -> None:
        """Keep the parts.

        Raises:
            InvalidInputError: no rows are allowed.
        """
        if max_rows < 1:
            raise InvalidInputError(f"The engine's max_rows is {max_rows}; give at least 1.")
        self.base = base
        self.bank = bank
        self.max_rows = max_rows
        self._controllers = dict(controllers or {})

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order.

        Raises:
            InvalidInputError: a plan does not fit the bank, or a request needs more than `max_rows`
                rows.
        """
        return [_completion(live, end) for live, end in self._finished(requests, is_traced=False)]

    def trace(self, requests: Sequence[Request]) -> list[Traced]:
        """As `generate`, with every row's log-probability of every token.

        These numbers are all that training a controller needs of the experts.

        Raises:
            InvalidInputError: as `generate`.
        """
        return [
            Traced(
                _completion(live, end),
                np.array(live.shares, dtype=np.float64),
                np.array(live.row_log_probs, dtype=np.float64),
            )
            for live, end in self._finished(requests, is_traced=True)
        ]

    def stream(self, requests: Sequence[Request]) -> Iterator[Token]:
        """Tokens of all requests as they are drawn; each request's last token says why it ended.

        Raises:
            InvalidInputError: a plan does not fit the bank, or a request needs more than `max_rows`
                rows.
        """
        for _, token in self._run(requests):
            yield token

    def _finished(
        self, requests: Sequence[Request], *, is_traced: bool
    ) -> list[tuple[Live, Token]]:
        """Every request with its last token, in order."""
        ends = {
            live.index: (live, token)
            for live, token in self._run(requests, is_traced=is_traced)
            if token.finish
        }
        return [ends[index] for index in range(len(requests))]

    def _run(
        self, requests: Sequence[Request], *, is_traced: bool = False
    ) -> Iterator[tuple[Live, Token]]:
        waiting = deque(self._admit(index, request) for index, request in enumerate(requests))
        runs = {name: controller.start() for name, controller in self._controllers.items()}
        batch: Batch | None = None
        while waiting or batch is not None:
            batch = self._join(batch, waiting)
            drawn = self._draw(batch, _controlled(batch, runs), is_traced=is_traced)
            yield from drawn
            batch = batch.without({live.index for live, token in drawn if token.finish})
            if batch is not None:
                self._advance(batch)

    def _admit(self, index: int, request: Request) -> Live:
        plan = request.plan.normal_form()
        if plan.n_experts != self.bank.n_experts:
            raise InvalidInputError(
                f"The plan has {plan.n_experts} coefficients a row, but the bank has "
                f"{self.bank.n_experts} experts; give one coefficient per expert."
            )
        if len(plan.rows) > self.max_rows:
            raise InvalidInputError(
                f"The plan has {len(plan.rows)} rows, but the engine runs at most {self.max_rows}."
            )
        controller = plan.pool.controller
        if controller is not None and controller not in self._controllers:
            raise InvalidInputError(
                f"The plan names the controller {controller!r}, which is not loaded."
            )
        prompt = tuple(encode_prompt(self.base, request.prompt))
        backend: Any = getattr(self.base.tokenizer, "backend_tokenizer", None)
        return Live(
            index=index,
            request=request,
            plan=plan,
            prompt=prompt,
            contexts=[prompt if row.context is None else row.context for row in plan.rows],
            uniforms=uniforms(seed=request.seed, n_tokens=request.sampling.max_tokens),
            text=TextStream(backend, stop=request.sampling.stop),
        )

    def _join(self, batch: Batch | None, waiting: deque[Live]) -> Batch:
        free = self.max_rows - (batch.n_rows if batch is not None else 0)
        if batch is not None and free < JOIN_SHARE * self.max_rows:
            return batch
        fresh: list[Live] = []
        while waiting and len(waiting[0].plan.rows) <= free:
            live = waiting.popleft()
            free -= len(live.plan.rows)
            fresh.append(live)
        if batch is None:
            return self._read(fresh)
        return batch.joined(self._read(fresh)) if fresh else batch

    @torch.inference_mode()
    def _read(self, lives: list[Live]) -> Batch:
        keys = [
            (row.coefficients, context)
            for live in lives
            for row, context in zip(live.plan.rows, live.contexts, strict=True)
        ]
        unique = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        width = max(len(context) for _, context in unique)
        filler = int(str(self.base.tokenizer.pad_token_id or 0))
        ids = [[filler] * (width - len(context)) + list(context) for _, context in unique]
        mask = [[0] * (width - len(context)) + [1] * len(context) for _, context in unique]
        cache = RowCache(DynamicCache(), torch.tensor(mask, device=self.base.device))
        logits = self._forward(ids, cache, [coefficients for coefficients, _ in unique])
        places = torch.tensor([unique[key] for key in keys], device=self.base.device)
        cache.select(places)
        return Batch(lives, cache, logits[places])

    @torch.inference_mode()
    def _advance(self, batch: Batch) -> None:
        batch.cache.extend()
        batch.logits = self._forward(batch.last_tokens(), batch.cache, batch.coefficients())

    def _forward(
        self,
        ids: Sequence[Sequence[int]],
        cache: RowCache,
        coefficients: Sequence[Sequence[float]],
    ) -> Float[Tensor, "rows vocab"]:
        tokens = torch.tensor(ids, device=self.base.device)
        positions = (cache.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        with self.bank.applied(coefficients):
            output = self.base.model(
                input_ids=tokens,
                attention_mask=cache.mask,
                position_ids=positions,
                past_key_values=cache.kv,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.logits[:, -1]

    @torch.inference_mode()
    def _draw(self, batch: Batch, rows: RowMap, *, is_traced: bool) -> list[tuple[Live, Token]]:
        log_probs = pool_log_probs(batch.logits, rows)
        tokens = draw(
            log_probs,
            sampling=[live.request.sampling for live in batch.lives],
            prompts=[live.contexts[0] for live in batch.lives],
            answers=[live.tokens for live in batch.lives],
            uniform=torch.tensor([live.uniforms[len(live.tokens)] for live in batch.lives]),
        )
        chosen = log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist()
        if is_traced:
            _keep_rows(batch, rows, tokens)
        return [
            (live, self._accept(live, token, log_prob))
            for live, token, log_prob in zip(batch.lives, tokens.tolist(), chosen, strict=True)
        ]

    def _accept(self, live: Live, token: int, log_prob: float) -> Token:
        live.tokens.append(token)
        live.log_probs.append(log_prob)
        is_end = token in self.base.stop_ids
        piece = "" if is_end else live.text.push(token)
        finish = None
        if is_end or live.text.is_stopped:
            finish = "stop"
        elif len(live.tokens) >= live.request.sampling.max_tokens:
            finish = "length"
        if finish is not None:
            piece += live.text.flush()
        return Token(live.index, token, piece, log_prob, finish)


def _completion(live: Live, end: Token) -> Completion:
    return Completion(
        prompt=live.request.prompt,
        text=live.text.text,
        tokens=tuple(live.tokens),
        log_probs=tuple(live.log_probs),
        finish="stop" if end.finish == "stop" else "length",
    )


def _keep_rows(batch: Batch, rows: RowMap, tokens: Tensor) -> None:
    """Note in each request what its rows said of the token that was drawn."""
    log_probs = torch.log_softmax(batch.logits.float(), dim=-1)
    own = log_probs.gather(1, tokens[rows.owner].unsqueeze(1)).squeeze(1)
    sizes = [len(live.plan.rows) for live in batch.lives]
    both = zip(own.split(sizes), rows.coefficient.split(sizes), strict=True)
    for live, (said, shares) in zip(batch.lives, both, strict=True):
        live.row_log_probs.append(said.tolist())
        live.shares.append(shares.tolist())


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
