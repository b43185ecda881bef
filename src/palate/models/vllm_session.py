"""An open-ended run on a vLLM: requests come and go, tokens arrive as the server sends them."""

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from palate.core.errors import InvalidInputError, PalateError, ProviderError
from palate.core.plan import Plan
from palate.core.protocols import Request, Token
from palate.models.batch import Live
from palate.models.chat import encode_prompt
from palate.models.sample import uniforms
from palate.models.session import FAILED, Drawn
from palate.models.stream import TextStream
from palate.models.vllm_answer import Answer, row_contexts, with_rows
from palate.models.vllm_parts import Account, VllmParts

WAIT_SECONDS = 0.05  # of a step in which nothing arrives


class VllmSession:
    """As `palate.models.session.Session`, on a server."""

    def __init__(self, parts: VllmParts) -> None:
        """Start with nobody."""
        self._parts = parts
        self._threads = ThreadPoolExecutor(
            parts.client.settings.max_concurrent, thread_name_prefix="palate-answer"
        )
        self._events: queue.SimpleQueue[tuple[Live, Token]] = queue.SimpleQueue()
        self._answers: dict[Live, Answer] = {}
        self._ended: dict[Live, Answer] = {}
        self._failures: dict[Live, PalateError] = {}
        self._count = 0

    @property
    def n_waiting(self) -> int:
        """Requests without a token."""
        return sum(not live.tokens for live in self._answers)

    @property
    def n_live(self) -> int:
        """Requests that are being answered."""
        return len(self._answers)

    @property
    def n_rows(self) -> int:
        """Rows of the requests that are being answered."""
        return sum(len(live.plan.rows) for live in self._answers)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return not self._answers

    def submit(self, request: Request, *, is_traced: bool = False, n_top: int = 0) -> Live:
        """Begin an answer as soon as a thread is free.

        Args:
            request: What is asked.
            is_traced: Refused: a server does not say what every row thinks of every token.
            n_top: Most probable tokens to keep at every step.

        Raises:
            InvalidInputError: this engine cannot execute the plan, or not with this sampling.
        """
        plan = request.plan.normal_form()
        is_pooled = with_rows(plan) or self._parts.client.settings.draws == "own"
        self._require_possible(request, plan, is_pooled=is_pooled, is_traced=is_traced)
        prompt = tuple(encode_prompt(self._parts.base, request.prompt))
        backend: Any = getattr(self._parts.base.tokenizer, "backend_tokenizer", None)
        live = Live(
            index=self._count,
            request=request,
            plan=plan,
            prompt=prompt,
            contexts=row_contexts(plan, prompt),
            uniforms=uniforms(seed=request.seed, n_tokens=request.sampling.max_tokens),
            text=TextStream(backend, stop=request.sampling.stop),
            n_top=n_top,
        )
        answer = Answer(self._parts, live, is_pooled, lambda token: self._events.put((live, token)))
        self._count += 1
        self._answers[live] = answer
        self._threads.submit(self._write, answer)
        return live

    def cancel(self, live: Live) -> None:
        """Let go of a request; one that has ended is no error."""
        answer = self._answers.pop(live, None)
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
        found = [(live, token) for live, token in found if live in self._answers]
        for live, token in found:
            if token.finish is not None:
                self._ended[live] = self._answers.pop(live)
        return found

    def run(self) -> Iterator[Token]:
        """Tokens until every request has ended.

        Raises:
            PalateError: an answer failed; the others are let go.
        """
        try:
            while not self.is_idle:
                for live, token in self.step():
                    if token.finish == FAILED:
                        raise self._failures[live]
                    yield token
        finally:
            self.close()

    def account(self, live: Live) -> Account:
        """What an answer is off by, at most."""
        return (self._answers.get(live) or self._ended[live]).account()

    def close(self) -> None:
        """Let go of everybody."""
        for live in list(self._answers):
            self.cancel(live)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _write(self, answer: Answer) -> None:
        live = answer.live
        if answer.is_cancelled.is_set():
            return
        try:
            answer.write()
        except PalateError as error:
            self._fail(live, error)
        except Exception as error:  # noqa: BLE001  a thread's failure is its answer's
            self._fail(live, ProviderError(f"The answer failed: {error!r}"))

    def _fail(self, live: Live, error: PalateError) -> None:
        live.error = str(error)
        self._failures[live] = error
        self._events.put((live, Token(live.index, -1, live.text.flush(), 0.0, FAILED)))

    def _require_possible(
        self, request: Request, plan: Plan, *, is_pooled: bool, is_traced: bool
    ) -> None:
        parts, settings = self._parts, self._parts.client.settings
        sampling, controller = request.sampling, plan.pool.controller
        has_rules = sampling.repetition_penalty != 1.0 or sampling.no_repeat_ngram_size > 0
        is_signed = plan.pool.kind == "log_linear" and min(plan.pool.coefficients) < 0
        rules = {
            f"The plan has {plan.n_experts} coefficients a row, but the engine has "
            f"{len(parts.names)} experts; give one coefficient per expert.": plan.n_experts
            != len(parts.names),
            "A vLLM gives no traces of rows; use the engine in this process.": is_traced,
            "The repetition rules of vLLM act on other numbers than ours; set draws: own, or leave "
            "repetition_penalty and no_repeat_ngram_size out.": has_rules and not is_pooled,
            f"The plan has {len(plan.rows)} rows, but nothing here pools a server's lists; open "
            "the engine with a pool.": with_rows(plan) and parts.pool is None,
            f"The plan names the controller {controller!r}, which is not loaded.": controller
            is not None
            and controller not in parts.controllers,
            f"A log-linear pool with negative coefficients needs whole vocabularies, but "
            f"max_top_k is {settings.max_top_k} of {parts.n_vocab}; start the server with "
            f"--max-logprobs {parts.n_vocab} and set max_top_k to it.": is_signed
            and settings.max_top_k < parts.n_vocab,
        }
        for sentence, is_broken in rules.items():
            if is_broken:
                raise InvalidInputError(sentence)
