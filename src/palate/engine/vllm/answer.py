"""One answer through a vLLM.

Whole from the server, whole from a group of rows that the server pools, or token by token from
lists.
"""

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from palate.core.errors import InvalidInputError, ProviderError, UnknownModelError
from palate.core.plan import Plan, Pool
from palate.core.protocols import SamplingParams
from palate.engine.listed import (
    ListStep,
    answer_from_lists,
    is_pooled,
    needs_whole_lists,
    pool_lists,
)
from palate.engine.openai.connection import chunk_of
from palate.engine.protocol import ExecutionReport
from palate.engine.remote import AnswerLog
from palate.engine.request import RunningRequest
from palate.engine.sample import has_repetition_rules, is_untruncated
from palate.engine.vllm.adapters import VllmContext, Writers
from palate.engine.vllm.client import RowRequest
from palate.engine.vllm.group_answer import GroupStep, group_steps, linear_log_prob
from palate.engine.vllm.rounding import Rounded

Source = Literal["server", "group", "lists"]  # where an answer's tokens are sampled
EXACT = Rounded((), 0.0, 0.0)


@dataclass(eq=False)
class VllmAnswer:
    """An answer under way; see `palate.engine.remote.RemoteAnswer`."""

    context: VllmContext
    log: AnswerLog  # its tokens so far; a plan of one row becomes the one with rounded coefficients
    source: Source  # where its tokens are sampled
    rounded: Rounded = EXACT  # the coefficients of a plan with one row
    n_calls: int = 0  # requests to the server
    _models: list[str] = field(default_factory=list[str])
    _writers: Writers = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Round the coefficients; only plans of one row are approximated by that.

        Raises:
            InvalidInputError: a soup is larger than the server's adapters may be.
        """
        running = self.log.running
        if len(running.plan.rows) == 1:
            (row,) = running.plan.rows
            self.rounded = self.context.rounding.rounded(row.coefficients)
            served = replace(row, coefficients=self.rounded.coefficients)
            running.plan = replace(running.plan, rows=(served,))
        models = [self.context.model_of(row.coefficients) for row in running.plan.rows]
        self._models = [model for model, _ in models]
        self._writers = {name: write for _, writers in models for name, write in writers.items()}

    def report(self) -> ExecutionReport:
        """What was approximated so far."""
        return replace(
            self.log.report(n_calls=self.n_calls),
            parameter_change=self.rounded.parameter_change,
            rounding_bound=self.rounded.bound,
        )

    def steps(self) -> Generator[None]:
        """Emit all tokens, the last one with its finish; yields after each of the others.

        Raises:
            ProviderError: the server failed.
            NotCertifiedError: lists were too short for the budget.
        """
        sources = {
            "server": self._from_server,
            "group": self._from_group,
            "lists": self._from_lists,
        }
        with self.context.cache.held(self._writers):
            for is_last in (not self._writers, True):
                try:
                    yield from sources[self.source]()
                except UnknownModelError as error:
                    if is_last or self.log.running.tokens:
                        what = f"{self.context.settings.url!r} lost a model ({error})"
                        raise ProviderError(f"The server {what}.", is_retryable=True) from error
                    self.context.cache.reload(self._writers)  # the server was restarted
                else:
                    return

    def _from_server(self) -> Iterator[None]:
        running, sampling = self.log.running, self.log.running.request.sampling
        self.n_calls += 1
        choices = self.context.client.stream(
            RowRequest(
                self._models[0],
                running.contexts[0],
                sampling,
                seed=running.request.seed,
                stop_ids=sorted(self.context.base.stop_ids),
                n_top=max(2, running.n_top),
                scope=running.request.scope,
            )
        )
        last: str | None = None
        for chunk in map(chunk_of, choices):
            last = chunk.finish or last
            for token, log_prob, top in zip(chunk.tokens, chunk.log_probs, chunk.tops, strict=True):
                if self.log.accept(token, log_prob, top):
                    return
                yield
        raise ProviderError(
            f"The server {self.context.settings.url!r} ended an answer after "
            f"{len(running.tokens)} of {sampling.max_tokens} tokens without an end token "
            f"(reason {last!r}); start it with a larger --max-model-len or ask for fewer tokens.",
            is_retryable=last is None,
        )

    def _from_group(self) -> Iterator[None]:
        running = self.log.running
        is_whole = _group_needs_lists(running.plan, n_top=running.n_top)
        n_listed = self.context.base.n_vocab if is_whole else max(2, running.n_top)
        self.n_calls += len(self._models)
        for step in group_steps(self.context, running, self._models, n_listed=n_listed):
            log_prob, listed = self._group_log_prob(step, is_whole=is_whole)
            self.log.trace(running.plan.pool, step.log_probs)
            if self.log.accept(step.token, log_prob, listed):
                return
            yield

    def _group_log_prob(
        self, step: GroupStep, *, is_whole: bool
    ) -> tuple[float, Mapping[int, float]]:
        """The token's pooled log-probability, and the known part of the pool."""
        pool = self.log.running.plan.pool
        if pool.kind == "single":
            return step.log_probs[0], step.lists[0]
        if not is_whole:
            return linear_log_prob(step.log_probs, pool.coefficients), {}
        pooled = pool_lists(step.lists, pool, n_vocab=self.context.base.n_vocab).log_probs
        return pooled.get(step.token, -math.inf), pooled

    def _from_lists(self) -> Iterator[None]:
        context = self.context
        return answer_from_lists(self.log, context.settings, context.controllers, self._list_rows)

    def _list_rows(self, pool: Pool, top_k: int) -> ListStep:
        running = self.log.running
        futures = [
            self.context.row_threads.submit(
                self.context.client.next_log_probs,
                model,
                [*context, *running.tokens],
                top_k=top_k,
                scope=running.request.scope,
            )
            for model, context in zip(self._models, running.contexts, strict=True)
        ]
        self.n_calls += len(futures)
        return ListStep([future.result() for future in futures], pool)


def source_of(plan: Plan, sampling: SamplingParams, context: VllmContext, *, n_top: int) -> Source:
    """Where the tokens of such an answer are sampled."""
    settings = context.settings
    if not is_pooled(plan) and settings.draws == "server":
        return "server"
    is_listed = settings.max_top_k >= context.base.n_vocab or not _group_needs_lists(
        plan, n_top=n_top
    )
    can_group = plan.pool.controller is None and is_untruncated(sampling) and is_listed
    return "group" if settings.pools == "server" and can_group else "lists"


def require_possible(context: VllmContext, running: RunningRequest, *, source: Source) -> None:
    """Refuse a request that the engine cannot execute with InvalidInputError, which says why."""
    settings, plan, sampling = context.settings, running.plan, running.request.sampling
    controller, limit = plan.pool.controller, context.context_length
    n_vocab = context.base.n_vocab
    is_listed = settings.max_top_k >= n_vocab
    is_blind = running.is_traced and plan.pool.has_authors and source == "lists"
    rules = {
        f"The plan has {plan.n_experts} coefficients a row, but the engine has "
        f"{len(context.names)} experts; give one coefficient per expert.": plan.n_experts
        != len(context.names),
        f"Who wrote a token of a mixture is known from whole vocabularies only, but max_top_k "
        f"is {settings.max_top_k} of {n_vocab}; set it and the server's --max-logprobs, "
        "or leave explain out.": is_blind and not is_listed,
        "The repetition rules of vLLM act on other numbers than ours; set draws: own, or leave "
        "repetition_penalty and no_repeat_ngram_size out.": has_repetition_rules(sampling)
        and source == "server",
        f"The plan names the controller {controller!r}, which is not loaded.": controller
        is not None
        and controller not in context.controllers,
        f"A log-linear pool with negative coefficients needs whole vocabularies, but "
        f"max_top_k is {settings.max_top_k} of {n_vocab}; start the server with "
        f"--max-logprobs {n_vocab} and set max_top_k to it.": needs_whole_lists(plan)
        and not is_listed,
        f"Prompt and answer may come to {running.most_tokens} tokens, but the server's context "
        f"length is {limit}; shorten one of them or start it with a larger --max-model-len.": limit
        is not None
        and running.most_tokens > limit,
    }
    for sentence, is_broken in rules.items():
        if is_broken:
            raise InvalidInputError(sentence)


def _group_needs_lists(plan: Plan, *, n_top: int) -> bool:
    """Whether a group must list whole vocabularies.

    The rows' log-probabilities of a token give its log-probability in a linear pool, but not the
    sum over all tokens that normalises a log-linear one, nor the pool's other probable tokens.
    """
    return len(plan.rows) > 1 and (plan.pool.kind == "log_linear" or n_top > 0)
