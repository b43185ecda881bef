"""The engine on a thread of its own, between which and the event loop only messages pass.

Answers join and leave the running batch at every step. Whatever else needs the model (features of
answers, for example) runs on the same thread between two steps. Where the library changes, the
engine of before ends its answers: the engines step in turn.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from palate.core.errors import ProviderError
from palate.core.protocols import Request, Token
from palate.engine.protocol import Engine, ExecutionReport, Session
from palate.engine.request import FAILED, RunningRequest
from palate.serve.errors import ApiError
from palate.serve.logs import LOGGER
from palate.serve.metrics import Metrics

Result = TypeVar("Result")
Event = tuple[RunningRequest, Token] | Exception


@dataclass(eq=False)
class Job:
    """One answer under way."""

    request: Request
    is_traced: bool = False  # whether what every row says is kept
    n_top: int = 0  # most probable tokens to keep
    # tokens as they come, each with its job, for several answers may share them; an exception ends
    # an answer
    events: "asyncio.Queue[tuple[Job, Event]]" = field(default_factory=asyncio.Queue)
    running: RunningRequest | None = None  # what the engine knows of it, once it was admitted
    session: Session | None = None  # of the engine that it was submitted to
    is_pending: bool = True  # no token has come
    is_done: bool = False


class EngineWorker:
    """Runs a session for everybody."""

    def __init__(
        self,
        engine: Engine,
        *,
        max_queue: int,
        max_prompt_tokens: int,
        context_length: int | None,
        metrics: Metrics,
    ) -> None:
        """Keep the parts; `start` begins."""
        self.engine = engine
        self.metrics = metrics
        self._max_queue = max_queue
        self._max_prompt_tokens = max_prompt_tokens
        self._context_length = context_length
        self._sessions = {engine: engine.open_session()}
        self._jobs: dict[RunningRequest, Job] = {}
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="palate-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._n_pending = 0
        self._is_stopping = False

    @property
    def _session(self) -> Session:
        """The session of the present engine."""
        return self._sessions[self.engine]

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs, and goes on."""
        return self._thread.is_alive() and not self._is_stopping

    def start(self) -> None:
        """Begin, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End after the step that runs; answers under way end with an error."""
        self._is_stopping = True
        self._commands.put(lambda: None)
        if self._thread.is_alive():
            self._thread.join(timeout=30.0)

    def submit(self, jobs: list[Job], engine: Engine) -> None:
        """Let answers join the batch; ApiError where too many wait already, or nobody answers."""
        self._require_alive()
        if self._n_pending + len(jobs) > self._max_queue:
            self.metrics.refused.labels("queue").inc()
            raise ApiError(
                429,
                f"{self._n_pending} answers wait already; try again in a moment.",
                code="queue_full",
                retry_seconds=1.0 + self._n_pending / self.engine.max_num_seqs,
            )
        self._n_pending += len(jobs)
        self.metrics.waiting.set(self._n_pending)
        for job in jobs:
            self._commands.put(lambda job=job: self._admit(job, engine))

    def cancel(self, job: Job) -> None:
        """Let go of an answer; one that has ended is no error."""
        if job.is_done:
            return
        self._settle(job)
        self.metrics.cancelled.inc()
        self._commands.put(lambda: self._drop(job))

    def forget(self, scope: str) -> None:
        """Drop what is cached of a scope, before the next step."""

        def drop() -> None:
            for session in self._sessions.values():
                session.forget(scope)

        self._commands.put(drop)

    def report(self, running: RunningRequest, engine: Engine) -> ExecutionReport | None:
        """What the engine approximated in an answer; `None` where it is exact."""
        return self._sessions[engine].report(running)

    async def begin(self, engine: Engine) -> None:
        """Let another engine answer what is submitted to it; the one of before goes on."""
        session = engine.open_session()
        await self.call(lambda: self._sessions.update({engine: session}))
        self.engine = engine

    async def end(self, engine: Engine) -> None:
        """Close an engine that nobody uses any more."""
        await self.call(lambda: self._sessions.pop(engine).close())
        await asyncio.to_thread(engine.close)

    async def call(self, function: Callable[[], Result]) -> Result:
        """The function's result, computed between two steps."""
        self._require_alive()
        future: Future[Result] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except Exception as error:  # noqa: BLE001  it is the caller's to see
                    future.set_exception(error)

        self._commands.put(run)
        return await asyncio.wrap_future(future)

    def _require_alive(self) -> None:
        if not self.is_alive:
            raise ApiError(503, "The engine has ended; restart the server.", "engine_unavailable")

    # --- on the event loop

    def _deliver(self, events: list[tuple[Job, Event]]) -> None:
        for job, event in events:
            if job.is_done:
                continue
            is_last = isinstance(event, Exception) or event[1].finish is not None
            self._settle(job, is_done=is_last)
            job.events.put_nowait((job, event))

    def _settle(self, job: Job, *, is_done: bool = True) -> None:
        job.is_done = is_done
        if job.is_pending:
            job.is_pending = False
            self._n_pending -= 1
            self.metrics.waiting.set(self._n_pending)

    # --- on the engine's thread

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                try:
                    self._obey()
                    self._step()
                except Exception:  # noqa: BLE001  one bad step must not end the thread
                    LOGGER.exception("a step of the engine failed")
                    self._fail_all(ApiError(500, "The engine failed; try again.", code="failed"))
                    self._sessions = {engine: engine.open_session() for engine in self._sessions}
                sessions = self._sessions.values()
                self.metrics.running.set(sum(session.n_running for session in sessions))
                self.metrics.rows.set(sum(session.n_rows for session in sessions))
            for session in self._sessions.values():
                session.close()
        finally:
            self._is_stopping = True
            with suppress(Exception):
                self._obey()  # who waits for a command is not left waiting
            self._fail_all(ApiError(503, "The server stops.", code="stopping"))

    def _step(self) -> None:
        if self._is_stopping or self._is_idle:
            return
        started = time.perf_counter()
        busy = [session for session in self._sessions.values() if not session.is_idle]
        output = [event for session in busy for event in session.step()]
        self.metrics.step.observe(time.perf_counter() - started)
        events = [(self._jobs[running], _event(running, token)) for running, token in output]
        for running, token in output:
            if token.finish is not None:
                del self._jobs[running]
        self._send(events)

    def _obey(self) -> None:
        """Carry out the commands that came; wait for one if nothing runs."""
        if self._is_idle and not self._is_stopping:
            self._commands.get()()
        while not self._commands.empty():
            self._commands.get()()

    @property
    def _is_idle(self) -> bool:
        return all(session.is_idle for session in self._sessions.values())

    def _admit(self, job: Job, engine: Engine) -> None:
        if job.is_done:
            return
        session = job.session = self._sessions[engine]
        try:
            running = session.add_request(job.request, is_traced=job.is_traced, n_top=job.n_top)
        except Exception as error:  # noqa: BLE001  it is the caller's to see
            self._send([(job, error)])
            return
        refused = self._too_long(running)
        if refused is not None:
            session.abort_request(running)
            self._send([(job, refused)])
            return
        job.running = running
        self._jobs[running] = job

    def _too_long(self, running: RunningRequest) -> ApiError | None:
        n_tokens, n_answer = len(running.prompt), running.request.sampling.max_tokens
        limit = self._context_length
        if n_tokens > self._max_prompt_tokens:
            message = (
                f"The prompt has {n_tokens} tokens, but at most {self._max_prompt_tokens} are "
                "allowed; shorten it."
            )
        elif limit is not None and running.most_tokens > limit:
            message = (
                f"The prompt has {running.most_tokens - n_answer} tokens and the answer may have "
                f"{n_answer}, but the model's context length is {limit}; shorten the prompt or "
                "ask for fewer tokens."
            )
        else:
            return None
        return ApiError(400, message, code="context_length_exceeded", param="messages")

    def _drop(self, job: Job) -> None:
        is_left = job.running is not None and self._jobs.pop(job.running, None) is not None
        if is_left and job.session is not None and job.running is not None:
            job.session.abort_request(job.running)

    def _fail_all(self, error: ApiError) -> None:
        self._send([(job, error) for job in self._jobs.values()])
        self._jobs.clear()

    def _send(self, events: list[tuple[Job, Event]]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._deliver, events)


def _event(running: RunningRequest, token: Token) -> Event:
    if token.finish == FAILED:
        return running.error or ProviderError("The engine failed without an error.")
    return (running, token)
