"""One answer through a vLLM.

Whole from the server, whole from a group of rows that the server mixes, or token by token from
lists.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from palate.core.errors import NotCertifiedError, ProviderError
from palate.core.plan import Plan, Pool, Row
from palate.core.protocols import SamplingParams, Token
from palate.engine.batch import RunningRequest
from palate.engine.control import ControlRun
from palate.engine.sample import draw
from palate.engine.vllm.group_answer import GroupStep, group_steps, linear_log_prob
from palate.engine.vllm.parts import (
    Account,
    Pooled,
    RowLists,
    VllmParts,
    Writers,
)
from palate.engine.vllm.rounding import Rounded
from palate.engine.vllm.wire import RowAsked, UnknownModel

Emit = Callable[[Token], None]
Source = Literal["server", "group", "lists"]  # where an answer's tokens are drawn


@dataclass(eq=False)
class Answer:
    """An answer under way; `write` runs on a thread of its own.

    Attributes:
        parts: What it runs on.
        running: What is known of it; of one row, its plan becomes the one that is served.
        source: Where its tokens are drawn.
        emit: Told of every token.
        rounded: Rows' coefficients as they are served.
    """

    parts: VllmParts
    running: RunningRequest
    source: Source
    emit: Emit
    rounded: tuple[Rounded, ...] = ()
    is_cancelled: threading.Event = field(default_factory=threading.Event)
    bounds: list[float] = field(default_factory=list[float])
    leads: list[float] = field(default_factory=list[float])
    n_calls: int = 0
    _models: list[str] = field(default_factory=list[str])
    _writers: Writers = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Round the coefficients; only plans of one row are approximated by that.

        Raises:
            InvalidInputError: a soup is larger than the server's adapters may be.
        """
        rows = self.running.plan.rows
        if len(rows) == 1:
            self.rounded = (self.parts.rounding.rounded(rows[0].coefficients),)
            served = replace(rows[0], coefficients=self.rounded[0].coefficients)
            self.running.plan = replace(self.running.plan, rows=(served,))
        else:
            self.rounded = tuple(Rounded(row.coefficients, 0.0, 0.0) for row in rows)
        found = [self.parts.model_of(row.coefficients) for row in self.rounded]
        self._models = [model for model, _ in found]
        self._writers = {name: write for _, writers in found for name, write in writers.items()}

    def account(self) -> Account:
        """What the tokens so far are off by, at most."""
        row_bounds = [row.bound for row in self.rounded]
        n_tokens = len(self.leads)  # another thread may be adding to them
        return Account(
            coefficients=tuple(row.coefficients for row in self.rounded),
            parameter_change=max(row.parameter_change for row in self.rounded),
            rounding_bound=None if None in row_bounds else max(b or 0.0 for b in row_bounds),
            list_bounds=tuple(self.bounds[:n_tokens]),
            leads=tuple(self.leads[:n_tokens]),
            is_greedy=self.running.request.sampling.temperature == 0.0,
            n_calls=self.n_calls,
        )

    def write(self) -> None:
        """All tokens, the last one with its reason.

        Raises:
            ProviderError: the server failed.
            NotCertifiedError: lists were too short for the budget.
        """
        with self.parts.cache.held(self._writers):
            try:
                self._write()
            except UnknownModel as error:
                if self.running.tokens or not self._writers:
                    raise self._gone(error) from error
                self.parts.cache.again(self._writers)  # the server forgot them: it was restarted
                try:
                    self._write()
                except UnknownModel as second:
                    raise self._gone(second) from second

    def _gone(self, error: UnknownModel) -> ProviderError:
        url = self.parts.client.settings.url
        return ProviderError(f"The server {url!r} lost a model ({error}).", is_retryable=True)

    def _write(self) -> None:
        if self.source == "server":
            steps = self._from_server(self._models[0])
        else:
            steps = self._from_group() if self.source == "group" else self._from_lists()
        for _ in steps:
            if self.is_cancelled.is_set():
                return

    # --- whole from the server

    def _from_server(self, model: str) -> Iterator[None]:
        running, sampling = self.running, self.running.request.sampling
        self.n_calls += 1
        pieces = self.parts.client.stream(
            RowAsked(
                model,
                running.contexts[0],
                sampling,
                seed=running.request.seed,
                stop_ids=sorted(self.parts.base.stop_ids),
                n_top=max(2, running.n_top),
                scope=running.request.scope,
            )
        )
        last: str | None = None
        for piece in pieces:
            last = piece.finish or last
            for token, log_prob, top in zip(piece.tokens, piece.log_probs, piece.tops, strict=True):
                self.bounds.append(0.0)
                self._note(top)
                if self._accept(token, log_prob):
                    return
                yield
        raise ProviderError(
            f"The server {self.parts.client.settings.url!r} ended an answer after "
            f"{len(running.tokens)} of {sampling.max_tokens} tokens without an end token "
            f"(reason {last!r}); start it with a larger --max-model-len or ask for fewer tokens.",
            is_retryable=last is None,
        )

    # --- whole from the server, which mixes the rows

    def _from_group(self) -> Iterator[None]:
        running = self.running
        is_whole = needs_lists(running.plan, n_top=running.n_top)
        n_listed = self.parts.n_vocab if is_whole else max(2, running.n_top)
        self.n_calls += len(self._models)
        for step in group_steps(self.parts, running, self._models, n_listed=n_listed):
            log_prob, listed = self._said(step, is_whole=is_whole)
            self.bounds.append(0.0)
            self._note(listed)
            self._trace(running.plan.pool, step.said)
            if self._accept(step.token, log_prob):
                return
            yield

    def _said(self, step: GroupStep, *, is_whole: bool) -> tuple[float, Mapping[int, float]]:
        """The token's pooled log-probability, and the list that is known of the pool."""
        pool = self.running.plan.pool
        if pool.kind == "single":
            return step.said[0], step.lists[0]
        if not is_whole:
            return linear_log_prob(step.said, pool.coefficients), {}
        pooled = self._pool(step.lists, pool).log_probs
        return pooled.get(step.token, -math.inf), pooled

    # --- token by token from lists

    def _from_lists(self) -> Iterator[None]:
        running, settings = self.running, self.parts.client.settings
        name = running.plan.pool.controller
        run = self.parts.controllers[name].start() if name is not None else None
        while True:
            pool = _pool_of(running, run)
            n_listed = settings.max_top_k if running.is_traced else settings.top_k
            lists, pooled = self._pooled(pool, n_listed)
            if pooled.bound > settings.budget and settings.max_top_k > settings.top_k:
                lists, pooled = self._pooled(pool, settings.max_top_k)
            if pooled.bound > settings.budget:
                raise NotCertifiedError(
                    f"Token {len(running.tokens) + 1} is known only within {pooled.bound:.3f} total "
                    f"variation from lists of {settings.max_top_k}, but the budget is "
                    f"{settings.budget}; raise max_top_k (and the server's --max-logprobs) or the "
                    "budget."
                )
            token = self._draw(pooled)
            self.bounds.append(pooled.bound)
            self._note(pooled.log_probs)
            self._trace(pool, [row.get(token, -math.inf) for row in lists])
            if self._accept(token, pooled.log_probs.get(token, -math.inf)):
                return
            yield

    def _pooled(self, pool: Pool, top_k: int) -> tuple[RowLists, Pooled]:
        contexts = [[*context, *self.running.tokens] for context in self.running.contexts]
        client = self.parts.client
        futures = [
            self.parts.rows.submit(
                client.next_log_probs, model, context, top_k=top_k, scope=self.running.request.scope
            )
            for model, context in zip(self._models, contexts, strict=True)
        ]
        self.n_calls += len(futures)
        lists: RowLists = [future.result() for future in futures]
        return lists, self._pool(lists, pool)

    def _pool(self, lists: RowLists, pool: Pool) -> Pooled:
        if pool.kind == "single":
            return _single(lists[0], n_vocab=self.parts.n_vocab)
        if self.parts.pool is None:  # refused when the request came
            raise NotCertifiedError("Nothing pools the lists of several rows.")
        return self.parts.pool(lists, pool, self.parts.n_vocab)

    def _draw(self, pooled: Pooled) -> int:
        scores = torch.full((1, self.parts.n_vocab), -torch.inf, dtype=torch.float64)
        listed = list(pooled.log_probs.items())
        scores[0, [token for token, _ in listed]] = torch.tensor(
            [value for _, value in listed], dtype=torch.float64
        )
        running = self.running
        drawn = draw(
            scores,
            sampling=[running.request.sampling],
            prompts=[running.contexts[0]],
            answers=[running.tokens],
            uniform=torch.tensor([running.uniforms[len(running.tokens)]]),
        )
        return int(drawn[0])

    def _note(self, listed: Mapping[int, float]) -> None:
        """Keep the lead of the first token, and the list if it was asked for.

        Of a list without a second token no lead is known: then it certifies nothing.
        """
        ordered = sorted(listed.items(), key=lambda item: -item[1])
        best = [math.exp(value) for _, value in ordered[:2]]
        self.leads.append(best[0] - best[1] if len(best) > 1 else 0.0)
        if self.running.n_top:
            self.running.top.append(ordered[: self.running.n_top])

    def _trace(self, pool: Pool, said: Sequence[float]) -> None:
        """Keep what the rows said of the token, if that was asked for."""
        if self.running.is_traced and pool.kind == "linear":
            self.running.shares.append(list(pool.coefficients))
            self.running.row_log_probs.append(list(said))

    def _accept(self, token: int, log_prob: float) -> bool:
        """Add a token to the answer; whether it was the last."""
        taken = self.running.take(token, log_prob, stop_ids=self.parts.base.stop_ids)
        self.emit(taken)
        return taken.finish is not None


def with_rows(plan: Plan) -> bool:
    """Whether the plan has several rows to pool."""
    return len(plan.rows) > 1 or plan.pool.controller is not None


def needs_lists(plan: Plan, *, n_top: int) -> bool:
    """Whether a group must list whole vocabularies.

    What the rows say of a token gives its log-probability in a linear pool, but not the sum over
    all tokens by which a log-linear one is normalised, nor the pool's other probable tokens.
    """
    return len(plan.rows) > 1 and (plan.pool.kind == "log_linear" or n_top > 0)


def source_of(plan: Plan, sampling: SamplingParams, parts: VllmParts, *, n_top: int) -> Source:
    """Where the tokens of such an answer are drawn."""
    settings = parts.client.settings
    if not with_rows(plan) and settings.draws == "server":
        return "server"
    is_plain = sampling.top_k == 0 and sampling.top_p == 1.0 and not has_rules(sampling)
    is_listed = settings.max_top_k >= parts.n_vocab or not needs_lists(plan, n_top=n_top)
    can_group = plan.pool.controller is None and is_plain and is_listed
    return "group" if settings.pools == "server" and can_group else "lists"


def has_rules(sampling: SamplingParams) -> bool:
    """Whether what was drawn before changes what may be drawn."""
    return sampling.repetition_penalty != 1.0 or sampling.no_repeat_ngram_size > 0


def row_contexts(plan: Plan, prompt: tuple[int, ...]) -> list[tuple[int, ...]]:
    """What each row reads first."""
    rows: tuple[Row, ...] = plan.rows
    return [prompt if row.context is None else row.context for row in rows]


def _pool_of(running: RunningRequest, run: ControlRun | None) -> Pool:
    if run is None:
        return running.plan.pool
    shares = run.shares([running])[0].double()
    return Pool("linear", tuple((shares / shares.sum()).tolist()))


def _single(listed: Mapping[int, float], *, n_vocab: int) -> Pooled:
    if len(listed) >= n_vocab:
        return Pooled(listed, 0.0)
    return Pooled(listed, max(0.0, 1.0 - math.fsum(math.exp(v) for v in listed.values())))
