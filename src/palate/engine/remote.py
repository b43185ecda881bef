"""Sessions of engines whose answers come from other servers, each on a thread of its own."""

import math
import queue
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol
from weakref import WeakKeyDictionary

from palate.core.errors import InvalidInputError, PalateError, ProviderError
from palate.core.plan import Pool
from palate.core.protocols import Request, Token
from palate.engine.protocol import Engine, ExecutionReport, StepOutput
from palate.engine.request import RunningRequest
from palate.models.load import Base

WAIT_SECONDS = 0.01  # of a step in which nothing arrives

Emit = Callable[[Token], None]


@dataclass(eq=False)
class AnswerLog:
    """The tokens of an answer that a thread writes, and what is known of their exactness."""

    running: RunningRequest
    base: Base
    emit: Emit  # receives every token
    is_aborted: threading.Event = field(default_factory=threading.Event)  # nobody waits any more
    list_bounds: list[float] = field(default_factory=list[float])
    leads: list[float] = field(default_factory=list[float])  # these two as in `ExecutionReport`

    def trace(self, pool: Pool, row_log_probs: Sequence[float]) -> None:
        """Record the rows' log-probabilities of the next token, if the request is traced."""
        if self.running.is_traced:
            self.running.shares.append(list(pool.coefficients))
            self.running.row_log_probs.append(list(row_log_probs))

    def report(self, *, n_calls: int) -> ExecutionReport:
        """What truncated lists approximated so far."""
        n_tokens = len(self.leads)  # another thread may be adding to them
        return ExecutionReport(
            coefficients=tuple(row.coefficients for row in self.running.plan.rows),
            parameter_change=0.0,
            rounding_bound=0.0,
            list_bounds=tuple(self.list_bounds[:n_tokens]),
            leads=tuple(self.leads[:n_tokens]),
            is_greedy=self.running.request.sampling.temperature == 0.0,
            n_calls=n_calls,
        )

    def accept(
        self, token: int, log_prob: float, listed: Mapping[int, float], bound: float = 0.0
    ) -> bool:
        """Add a token with its list of log-probabilities and bound; whether it was the last.

        A list without a second token has no known lead: it certifies nothing.
        """
        ordered = sorted(listed.items(), key=lambda item: -item[1])
        best = [math.exp(value) for _, value in ordered[:2]]
        self.list_bounds.append(bound)
        self.leads.append(best[0] - best[1] if len(best) > 1 else 0.0)
        if self.running.n_top:
            self.running.top.append(ordered[: self.running.n_top])
        emitted = self.running.take(token, log_prob, stop_ids=self.base.stop_ids)
        self.emit(emitted)
        return emitted.finish is not None


class RemoteAnswer(Protocol):
    """An answer under way on another server."""

    log: AnswerLog  # its tokens so far

    def steps(self) -> Generator[None]:
        """Emit all tokens, yielding after each but the last; runs on a thread of its own."""
        ...

    def report(self) -> ExecutionReport:
        """What was approximated so far."""
        ...


class RemoteEngine(Engine, Protocol):
    """An engine whose answers come from another server."""

    base: Base  # for its tokenizer

    def open_session(self) -> "RemoteSession":
        """A new session."""
        return RemoteSession(self)

    def begin(self, running: RunningRequest, emit: Emit) -> RemoteAnswer:
        """The answer to a request, before its first token.

        Raises:
            InvalidInputError: the request cannot be executed.
        """
        ...


class RemoteSession:
    """A session over another server; see `palate.engine.protocol.Session`."""

    def __init__(self, engine: RemoteEngine) -> None:
        """A session without requests."""
        self._engine = engine
        self._threads = ThreadPoolExecutor(engine.max_num_seqs, thread_name_prefix="palate-answer")
        self._events: queue.SimpleQueue[tuple[RunningRequest, Token]] = queue.SimpleQueue()
        self._answers: dict[RunningRequest, RemoteAnswer] = {}
        self._ended: WeakKeyDictionary[RunningRequest, ExecutionReport] = WeakKeyDictionary()
        self._count = 0

    @property
    def n_running(self) -> int:
        """Requests that are being answered."""
        return len(self._answers)

    @property
    def n_rows(self) -> int:
        """Rows of the requests that are being answered."""
        return sum(len(running.plan.rows) for running in self._answers)

    @property
    def is_idle(self) -> bool:
        """Whether no request waits or runs."""
        return not self._answers

    def add_request(
        self, request: Request, *, is_traced: bool = False, n_top: int = 0
    ) -> RunningRequest:
        """Begin an answer as soon as a thread is free.

        An implicit soup is executed as the explicit one, which has the same distribution.

        Raises:
            InvalidInputError: the engine cannot execute the request.
        """
        if request.constraint is not None or request.logit_bias:
            raise InvalidInputError(
                "Engines on other servers keep answers to no JSON schema and take no logit_bias; "
                "leave out response_format, a forced tool_choice and logit_bias."
            )
        running = RunningRequest.start(
            request, self._engine.base, index=self._count, is_traced=is_traced, n_top=n_top
        )
        pool = replace(running.plan.pool, is_implicit=False)
        running.plan = replace(running.plan, pool=pool)
        answer = self._engine.begin(running, lambda token: self._events.put((running, token)))
        self._count += 1
        self._answers[running] = answer
        self._threads.submit(self._write, answer)
        return running

    def abort_request(self, running: RunningRequest) -> None:
        """Drop a request; one that has ended is no error."""
        answer = self._answers.pop(running, None)
        if answer is not None:
            answer.log.is_aborted.set()

    def forget(self, scope: str) -> None:
        """Nothing: the other server evicts what it cached under this salt by itself."""

    def step(self) -> StepOutput:
        """The tokens that have arrived, after waiting a moment for the first one."""
        arrived: StepOutput = []
        with suppress(queue.Empty):
            arrived.append(self._events.get(timeout=WAIT_SECONDS))
            while True:
                arrived.append(self._events.get_nowait())
        output = [(running, token) for running, token in arrived if running in self._answers]
        for running, token in output:
            if token.finish is not None:
                self._ended[running] = self._answers[running].report()
                del self._answers[running]  # after that: other threads look in one of the two
        return output

    def report(self, running: RunningRequest) -> ExecutionReport | None:
        """What was approximated in an answer; `None` for one that was aborted."""
        answer = self._answers.get(running)
        return self._ended.get(running) if answer is None else answer.report()

    def close(self) -> None:
        """Abort all requests."""
        for running in list(self._answers):
            self.abort_request(running)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _write(self, answer: RemoteAnswer) -> None:
        log = answer.log
        if log.is_aborted.is_set():
            return
        try:
            with closing(answer.steps()) as steps:
                for _ in steps:
                    if log.is_aborted.is_set():
                        return
        except PalateError as error:
            log.emit(log.running.fail(error))
        except Exception as error:  # noqa: BLE001  a thread's failure is its answer's
            log.emit(log.running.fail(ProviderError(f"The answer failed: {error!r}")))
