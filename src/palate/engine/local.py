"""The engine in this process: executes batches of plans on one base and one adapter bank.

Every request contributes the rows of its plan to one running batch: different users, methods and
coefficients share each forward pass. Prompts are prefilled once, decoded with a key-value cache,
pooled per request, and every row of a request receives the sampled token. Requests join when rows
are free and leave when they end, so a long answer does not hold up short ones.

A request's answer depends on its own prompt, plan, sampling and seed. Other requests in the batch
change log-probabilities only by rounding (about 1e-6 in float32). A request that cannot be answered
(its distribution is not finite, or a pass with it ends with an error) fails alone.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan
from palate.core.protocols import Request
from palate.core.types import Completion
from palate.engine.bank import AdapterBank
from palate.engine.batch import Batch
from palate.engine.constrain import constrained
from palate.engine.control import Controller, ControlRun
from palate.engine.implicit import require_untruncated, sample_by_rejection
from palate.engine.pool import RowMap, pool_log_probs
from palate.engine.prefill import ModelRunner, PrefillSettings
from palate.engine.protocol import Engine, StepOutput, finished
from palate.engine.request import RunningRequest
from palate.engine.sample import sample_tokens, sampled_log_probs
from palate.models.load import Base

DEFAULT_PREFILL = PrefillSettings()
JOIN_SHARE = 0.25  # share of the rows that must be free before waiting requests are prefilled


@dataclass(frozen=True, eq=False)
class Traced:
    """An answer with every row's log-probabilities."""

    completion: Completion
    shares: Float[np.ndarray, "tokens rows"]  # pool coefficients with which each token was sampled
    row_log_probs: Float[np.ndarray, "tokens rows"]  # of each token under each row


class LocalEngine(Engine):
    """Executes plans in this process."""

    name = "local"

    def __init__(
        self,
        base: Base,  # frozen
        bank: AdapterBank,  # the experts; plans have one coefficient for each
        *,
        max_num_seqs: int = 128,  # most rows in the running batch
        # most tokens that the key-value cache may come to hold, over all sequences: a request has
        # one for each of its rows, but one for all rows that differ in the unembedding alone
        max_num_batched_tokens: int | None = None,
        prefill: PrefillSettings = DEFAULT_PREFILL,  # caches nothing for later prompts
        controllers: Mapping[str, Controller] | None = None,  # by name
    ) -> None:
        """Keep the parts.

        Raises:
            InvalidInputError: a limit is below one.
        """
        for setting, value in (
            ("max_num_seqs", max_num_seqs),
            ("max_num_batched_tokens", max_num_batched_tokens),
        ):
            if value is not None and value < 1:
                raise InvalidInputError(f"The engine's {setting} is {value}; give at least 1.")
        self.base = base
        self.bank = bank
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.prefill = prefill
        self.controllers = dict(controllers or {})

    def open_session(self) -> "LocalSession":
        """A new session; sessions of one engine take turns, never step at the same time."""
        return LocalSession(self)

    def start_control(self) -> dict[str, ControlRun]:
        """The state of every controller for a new batch."""
        return {name: controller.start() for name, controller in self.controllers.items()}

    def require_ready(self) -> None:
        """Return: an engine in this process is always ready."""

    def close(self) -> None:
        """Nothing outside this process is held."""

    def trace(self, requests: Sequence[Request]) -> list[Traced]:
        """As `generate`, with every row's log-probability of every token."""
        return [
            Traced(
                completion,
                np.array(running.shares, dtype=np.float64),
                np.array(running.row_log_probs, dtype=np.float64),
            )
            for running, completion in finished(self.open_session(), requests, is_traced=True)
        ]


class LocalSession:
    """A running batch that requests join and leave at every step; one thread uses it."""

    def __init__(self, engine: LocalEngine) -> None:
        """An empty batch."""
        self._engine = engine
        self._runner = ModelRunner(engine.base, engine.bank, engine.prefill)
        self._waiting: deque[RunningRequest] = deque()
        self._batch: Batch | None = None
        self._control_runs: dict[str, ControlRun] = {}
        self._count = 0

    @property
    def n_running(self) -> int:
        """Requests in the running batch."""
        return len(self._batch.requests) if self._batch is not None else 0

    @property
    def n_rows(self) -> int:
        """Rows of the running batch."""
        return self._batch.n_rows if self._batch is not None else 0

    @property
    def is_idle(self) -> bool:
        """Whether no request waits or runs."""
        return self._batch is None and not self._waiting

    def add_request(
        self, request: Request, *, is_traced: bool = False, n_top: int = 0
    ) -> RunningRequest:
        """Queue a request; see `palate.engine.protocol.Session`.

        Raises:
            InvalidInputError: the plan does not fit the bank or the engine's limits.
        """
        self._require_possible(request)
        engine = self._engine
        running = RunningRequest.start(
            request, engine.base, index=self._count, is_traced=is_traced, n_top=n_top
        )
        running.sequences = _sequences(engine.bank, running.plan, running.contexts)
        if not self._fits([running]):
            raise InvalidInputError(
                f"The request needs {running.n_sequences} x {running.most_tokens} positions, but "
                f"the engine holds at most {engine.max_num_batched_tokens}; shorten the prompt or "
                "the answer."
            )
        self._count += 1
        self._waiting.append(running)
        return running

    def abort_request(self, running: RunningRequest) -> None:
        """Drop a request at once; one that has ended is no error."""
        if running in self._waiting:
            self._waiting.remove(running)
        elif self._batch is not None:
            self._batch = self._batch.without({running.index})

    def forget(self, scope: str) -> None:
        """Drop the scope's prefixes, and cache no more of them."""
        self._runner.forget(scope)

    def report(self, running: RunningRequest) -> None:
        """Nothing: answers are exact."""
        del running

    def close(self) -> None:
        """Abort all requests."""
        self._waiting.clear()
        self._batch = None

    def step(self) -> StepOutput:
        """One token for every running request; the last token of a request has a finish.

        An error in a pass ends the requests that cause it, found by bisection, and no others.
        """
        batch, failures = self._admit_waiting()
        if batch is None:
            return failures
        try:
            rows, log_probs, tokens = self._sample(batch, self._control_runs)
        except Exception:  # noqa: BLE001  whatever it is, it is found and given to its request
            return failures + self._rebuild(batch.requests)
        output = self._take(batch, rows, log_probs, tokens)
        ended = {running.index for running, token in output if token.finish}
        left = [running for running in batch.requests if running.index not in ended]
        try:
            self._runner.cache_prefixes(batch, ended)
            self._batch = batch.without(ended)
            if self._batch is not None:
                self._runner.decode(self._batch)
        except Exception:  # noqa: BLE001  as above
            failures += self._rebuild(left)
        return failures + output

    def _rebuild(self, requests: list[RunningRequest]) -> StepOutput:
        """Prefill the running batch anew, without those that fail, which are returned."""
        self._control_runs = self._engine.start_control()
        self._batch, failures = self._prefill_apart(requests)
        return failures

    def _prefill_apart(self, requests: list[RunningRequest]) -> tuple[Batch | None, StepOutput]:
        """A batch of the requests that can be answered; the others end, each with its error."""
        groups, failures = [requests] if requests else [], StepOutput()
        whole: Batch | None = None
        while groups:
            group = groups.pop(0)
            try:
                part = self._runner.prefill(group)
                self._sample(part, self._engine.start_control())
            except Exception as error:  # noqa: BLE001  the request's, whatever it is
                half = len(group) // 2
                groups += [group[:half], group[half:]] if half else []
                failures += [] if half else [(group[0], group[0].fail(error))]
            else:
                whole = part if whole is None else whole.joined(part)
        return whole, failures

    def _require_possible(self, request: Request) -> None:
        engine, plan = self._engine, request.plan.normal_form()
        controller = plan.pool.controller
        rules = {
            f"The plan has {plan.n_experts} coefficients a row, but the bank has "
            f"{engine.bank.n_experts} experts; give one coefficient per expert.": plan.n_experts
            != engine.bank.n_experts,
            f"The plan has {len(plan.rows)} rows, but the engine runs at most "
            f"{engine.max_num_seqs}.": len(plan.rows) > engine.max_num_seqs,
            f"The plan names the controller {controller!r}, which is not loaded.": controller
            is not None
            and controller not in engine.controllers,
        }
        for sentence, is_broken in rules.items():
            if is_broken:
                raise InvalidInputError(sentence)
        if plan.pool.is_implicit:
            require_untruncated(request.sampling)

    def _fits(self, requests: Sequence[RunningRequest]) -> bool:
        """Whether these requests can run together to their ends."""
        n_rows = sum(len(running.plan.rows) for running in requests)
        n_sequences = sum(running.n_sequences for running in requests)
        width = max(running.most_tokens for running in requests)
        limit = self._engine.max_num_batched_tokens
        return n_rows <= self._engine.max_num_seqs and (
            limit is None or n_sequences * width <= limit
        )

    def _admit_waiting(self) -> tuple[Batch | None, StepOutput]:
        """The running batch, with those of the waiting requests that fit; and those that fail."""
        batch, max_num_seqs = self._batch, self._engine.max_num_seqs
        if not self._waiting:
            return batch, []
        if batch is None:
            self._control_runs = self._engine.start_control()
        elif max_num_seqs - batch.n_rows < JOIN_SHARE * max_num_seqs:
            return batch, []
        current = list(batch.requests) if batch is not None else []
        fresh: list[RunningRequest] = []
        failures: StepOutput = []
        try:
            while self._waiting and self._fits([*current, *fresh, self._waiting[0]]):
                if current and self._runner.prefill_chunk(self._waiting[0]):
                    break  # the others' next tokens first
                fresh.append(self._waiting.popleft())
            joining = self._runner.prefill(fresh) if fresh else None
        except Exception:  # noqa: BLE001  it is found below
            joining, failures = self._prefill_apart(fresh or [self._waiting.popleft()])
        if joining is not None:
            self._batch = joining if batch is None else batch.joined(joining)
        return self._batch, failures

    @torch.inference_mode()
    def _sample(
        self, batch: Batch, control_runs: Mapping[str, ControlRun]
    ) -> tuple[RowMap, Float[Tensor, "requests vocab"], Tensor]:
        """How rows count, the pooled distributions, and a token of each request."""
        requests = batch.requests
        rows = batch.controlled_rows(control_runs)
        log_probs = pool_log_probs(batch.logits, rows)
        tokens = sample_tokens(
            constrained(log_probs, requests),
            sampling=[running.request.sampling for running in requests],
            prompts=[running.contexts[0] for running in requests],
            answers=[running.tokens for running in requests],
            uniform=torch.tensor([running.uniforms[len(running.tokens)] for running in requests]),
        )
        if any(running.plan.pool.is_implicit for running in requests):
            tokens = sample_by_rejection(
                tokens, requests, logits=batch.logits, log_probs=log_probs, rows=rows
            )
        return rows, log_probs, tokens

    def _take(self, batch: Batch, rows: RowMap, log_probs: Tensor, tokens: Tensor) -> StepOutput:
        """Add the tokens to their requests."""
        token_log_probs = log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist()
        if any(running.is_traced for running in batch.requests):
            batch.record_rows(rows, tokens)
        if any(running.n_top for running in batch.requests):
            batch.record_top(log_probs)
        stop_ids = self._engine.base.stop_ids
        sampled = sampled_log_probs(
            log_probs, tokens, sampling=[running.request.sampling for running in batch.requests]
        )
        output: StepOutput = []
        for running, token, log_prob, own in zip(
            batch.requests, tokens.tolist(), token_log_probs, sampled, strict=True
        ):
            is_plain = not (running.is_constrained or running.plan.pool.is_implicit)
            before = running.sampled_log_prob if running.tokens else 0.0
            running.sampled_log_prob = before + own if is_plain else math.nan
            try:
                output.append((running, running.take(token, log_prob, stop_ids=stop_ids)))
            except Exception as error:  # noqa: BLE001  the request's, whatever it is
                output.append((running, running.fail(error)))
        return output


def _sequences(
    bank: AdapterBank, plan: Plan, contexts: Sequence[tuple[int, ...]]
) -> tuple[int, ...]:
    """The sequence that each row's logits come from: rows share one if only the head differs."""
    places: dict[tuple[tuple[float, ...], tuple[int, ...]], int] = {}
    return tuple(
        places.setdefault((bank.before_head(row.coefficients), context), len(places))
        for row, context in zip(plan.rows, contexts, strict=True)
    )
