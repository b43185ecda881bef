"""An open-ended run on a vLLM: requests come and go, tokens arrive as the server sends them."""

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from palate.core.errors import InvalidInputError, PalateError, ProviderError
from palate.core.plan import Plan
from palate.core.protocols import Request, Token
from palate.engine.batch import RunningRequest
from palate.engine.sample import uniforms
from palate.engine.session import FAILED, Drawn
from palate.engine.stream import TextStream
from palate.engine.vllm.answer import (
    Answer,
    Source,
    has_rules,
    row_contexts,
    source_of,
    with_rows,
)
from palate.engine.vllm.parts import Account, VllmParts
from palate.models.chat import encode_prompt

WAIT_SECONDS = 0.01  # of a step in which nothing arrives


class VllmSession:
    """As `palate.engine.session.Session`, on a server."""

    def __init__(self, parts: VllmParts) -> None:
        """Start with nobody."""
        self._parts = parts
        self._threads = ThreadPoolExecutor(
            parts.client.settings.max_concurrent, thread_name_prefix="palate-answer"
        )
        self._events: queue.SimpleQueue[tuple[RunningRequest, Token]] = queue.SimpleQueue()
        self._answers: dict[RunningRequest, Answer] = {}
        self._ended: WeakKeyDictionary[RunningRequest, Account] = WeakKeyDictionary()
        self._count = 0

    @property
    def n_waiting(self) -> int:
        """Requests without a token."""
        return sum(not running.tokens for running in self._answers)

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
        """Whether nothing runs."""
        return not self._answers

    def add_request(
        self, request: Request, *, is_traced: bool = False, n_top: int = 0
    ) -> RunningRequest:
        """Begin an answer as soon as a thread is free.

        An implicit soup is executed as the explicit one, which has the same distribution.

        Args:
            request: What is asked.
            is_traced: Keep what every row says of every token, where tokens are mixed linearly;
                of other plans nothing is kept.
            n_top: Most probable tokens to keep at every step.

        Raises:
            InvalidInputError: this engine cannot execute the plan, or not with this sampling.
        """
        plan = _explicit(request.plan.normal_form())
        source = source_of(plan, request.sampling, self._parts, n_top=n_top)
        self._require_possible(request, plan, source=source, is_traced=is_traced)
        prompt = tuple(encode_prompt(self._parts.base, request.prompt))
        backend: Any = getattr(self._parts.base.tokenizer, "backend_tokenizer", None)
        running = RunningRequest(
            index=self._count,
            request=request,
            plan=plan,
            prompt=prompt,
            contexts=row_contexts(plan, prompt),
            uniforms=uniforms(seed=request.seed, n_tokens=request.sampling.max_tokens),
            text=TextStream(backend, stop=request.sampling.stop),
            is_traced=is_traced,
            n_top=n_top,
        )
        self._require_room(running)
        answer = Answer(
            self._parts, running, source, lambda token: self._events.put((running, token))
        )
        self._count += 1
        self._answers[running] = answer
        self._threads.submit(self._write, answer)
        return running

    def abort_request(self, running: RunningRequest) -> None:
        """Let go of a request; one that has ended is no error."""
        answer = self._answers.pop(running, None)
        if answer is not None:
            answer.is_cancelled.set()

    def step(self) -> Drawn:
        """What has arrived, after waiting a moment for the first token."""
        found: Drawn = []
        try:
            found.append(self._events.get(timeout=WAIT_SECONDS))
            while True:
                found.append(self._events.get_nowait())
        except queue.Empty:
            pass
        found = [(running, token) for running, token in found if running in self._answers]
        for running, token in found:
            if token.finish is not None:
                self._ended[running] = self._answers[running].account()
                del self._answers[running]  # after that, so that whoever asks finds one of the two
        return found

    def run(self) -> Iterator[Token]:
        """Tokens until every request has ended.

        Raises:
            PalateError: an answer failed; the others are let go.
        """
        try:
            while not self.is_idle:
                for running, token in self.step():
                    if token.finish == FAILED:
                        raise running.failure or ProviderError(running.error)
                    yield token
        finally:
            self.close()

    def account(self, running: RunningRequest) -> Account | None:
        """What an answer is off by, at most; `None` of one that was let go."""
        answer = self._answers.get(running)
        return self._ended.get(running) if answer is None else answer.account()

    def close(self) -> None:
        """Let go of everybody."""
        for running in list(self._answers):
            self.abort_request(running)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _write(self, answer: Answer) -> None:
        running = answer.running
        if answer.is_cancelled.is_set():
            return
        try:
            answer.write()
        except PalateError as error:
            self._fail(running, error)
        except Exception as error:  # noqa: BLE001  a thread's failure is its answer's
            self._fail(running, ProviderError(f"The answer failed: {error!r}"))

    def _fail(self, running: RunningRequest, error: PalateError) -> None:
        running.error, running.failure = str(error), error
        self._events.put((running, Token(running.index, -1, running.text.flush(), 0.0, FAILED)))

    def _require_room(self, running: RunningRequest) -> None:
        limit = self._parts.max_tokens
        if limit is not None and running.most_tokens > limit:
            raise InvalidInputError(
                f"Prompt and answer may come to {running.most_tokens} tokens, but the server reads at "
                f"most {limit}; shorten one of them or start it with a larger --max-model-len."
            )

    def _require_possible(
        self, request: Request, plan: Plan, *, source: Source, is_traced: bool
    ) -> None:
        parts, settings = self._parts, self._parts.client.settings
        controller, is_listed = plan.pool.controller, settings.max_top_k >= parts.n_vocab
        is_blind = is_traced and plan.pool.kind == "linear" and source == "lists"
        is_signed = plan.pool.kind == "log_linear" and min(plan.pool.coefficients) < 0
        rules = {
            f"The plan has {plan.n_experts} coefficients a row, but the engine has "
            f"{len(parts.names)} experts; give one coefficient per expert.": plan.n_experts
            != len(parts.names),
            f"Who wrote a token of a mixture is known from whole vocabularies only, but max_top_k "
            f"is {settings.max_top_k} of {parts.n_vocab}; set it and the server's --max-logprobs, "
            "or leave explain out.": is_blind and not is_listed,
            "The repetition rules of vLLM act on other numbers than ours; set draws: own, or leave "
            "repetition_penalty and no_repeat_ngram_size out.": has_rules(request.sampling)
            and source == "server",
            f"The plan has {len(plan.rows)} rows, but nothing here pools a server's lists; open "
            "the engine with a pool.": with_rows(plan) and parts.pool is None,
            f"The plan names the controller {controller!r}, which is not loaded.": controller
            is not None
            and controller not in parts.controllers,
            f"A log-linear pool with negative coefficients needs whole vocabularies, but "
            f"max_top_k is {settings.max_top_k} of {parts.n_vocab}; start the server with "
            f"--max-logprobs {parts.n_vocab} and set max_top_k to it.": is_signed and not is_listed,
        }
        for sentence, is_broken in rules.items():
            if is_broken:
                raise InvalidInputError(sentence)


def _explicit(plan: Plan) -> Plan:
    """The plan with its rows pooled at every token, not drawn by rejection."""
    return replace(plan, pool=replace(plan.pool, is_implicit=False))
