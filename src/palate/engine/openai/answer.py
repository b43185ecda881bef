"""One answer of black boxes: from one endpoint, from pooled lists, or from sampled experts."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from palate.core.errors import ProviderError
from palate.core.plan import Pool
from palate.core.seeds import derive_seed, generator_for
from palate.engine.control import Controller
from palate.engine.listed import ListStep, answer_from_lists, is_pooled, skip_small
from palate.engine.openai.endpoint import Endpoint, OpenAISettings
from palate.engine.protocol import ExecutionReport
from palate.engine.remote import AnswerLog


@dataclass(eq=False)
class OpenAIAnswer:
    """An answer under way; see `palate.engine.remote.RemoteAnswer`."""

    settings: OpenAISettings
    log: AnswerLog  # its tokens so far
    names: Sequence[str]  # expert of each row
    endpoints: Sequence[Endpoint]  # of each row
    controllers: Mapping[str, Controller]  # by name
    row_threads: ThreadPoolExecutor  # for the rows of pooled answers
    notes: list[str] = field(default_factory=list[str])  # a sentence for each dropped expert
    n_calls: int = 0  # requests to endpoints

    def report(self) -> ExecutionReport:
        """What was approximated so far."""
        coefficients = [row.coefficients for row in self.log.running.plan.rows]
        return self.log.report(coefficients, n_calls=self.n_calls, notes=self.notes)

    def write(self) -> None:
        """Emit all tokens, the last one with its finish.

        Raises:
            ProviderError: an endpoint failed and the answer is to fail, or no endpoint is left.
            NotCertifiedError: lists were too short for the budget.
        """
        if not is_pooled(self.log.running.plan):
            steps = self._from_endpoint()
        elif self.settings.top_k == 0:
            steps = self._from_samples()
        else:
            steps = answer_from_lists(self.log, self.settings, self.controllers, self._list_rows)
        for _ in steps:
            if self.log.is_aborted.is_set():
                return

    def _from_endpoint(self) -> Iterator[None]:
        running, settings = self.log.running, self.settings
        self.n_calls += 1
        steps = self.endpoints[0].stream(
            running.contexts[0],
            running.request.sampling,
            seed=running.request.seed,
            n_top=max(2, running.n_top) if settings.top_k else 0,
        )
        for token, log_prob, listed in steps:
            self.log.record(listed)
            if self.log.accept(token, log_prob):
                return
            yield
        raise ProviderError(
            f"The endpoint of {self.names[0]!r} ended an answer after {len(running.tokens)} of "
            f"{running.request.sampling.max_tokens} tokens without an end token; its context "
            "length may be too short."
        )

    def _from_samples(self) -> Iterator[None]:
        running = self.log.running
        name, seed = running.plan.pool.controller, running.request.seed
        control_run = self.controllers[name].start() if name is not None else None
        while True:
            place, shares = len(running.tokens), np.array(running.plan.pool.coefficients)
            if control_run is not None:
                shares = control_run.shares([running])[0].double().cpu().numpy()
            token, lost = self._sampled(shares, derive_seed(seed, "token", place), place)
            self.log.record({}, lost)
            if self.log.accept(token, 0.0):  # the pooled probability is unknown
                return
            yield

    def _sampled(self, shares: Float[ndarray, " rows"], seed: int, place: int) -> tuple[int, float]:
        """The next token from one row, and the total variation of rows that were left out."""
        running = self.log.running
        while True:
            used, lost = self._usable(shares)
            generator = generator_for(running.request.seed, "expert", place)
            row = int(generator.choice(len(used), p=used))
            context = [*running.contexts[row], *running.tokens]
            self.n_calls += 1
            try:
                return self.endpoints[row].sample(context, seed=seed), lost
            except ProviderError as error:
                self._drop(self.names[row], error)

    def _list_rows(self, pool: Pool, top_k: int) -> ListStep:
        if pool.kind == "log_linear":
            return ListStep(self._lists(range(len(self.names)), top_k), pool)
        while True:
            shares, lost = self._usable(np.array(pool.coefficients))
            rows = np.flatnonzero(shares).tolist()
            try:
                lists = self._lists(rows, top_k)
            except _DroppedError:
                continue
            by_row = dict(zip(rows, lists, strict=True))
            every = [by_row.get(row, {}) for row in range(len(self.names))]
            return ListStep(every, Pool("linear", tuple(shares.tolist())), lost)

    def _lists(self, rows: Sequence[int], top_k: int) -> list[dict[int, float]]:
        """The rows' lists for the next token.

        Raises:
            _DroppedError: an endpoint failed and was dropped.
        """
        running = self.log.running
        futures = [
            self.row_threads.submit(
                self.endpoints[row].next_log_probs,
                [*running.contexts[row], *running.tokens],
                top_k=top_k,
            )
            for row in rows
        ]
        self.n_calls += len(futures)
        lists: list[dict[int, float]] = []
        for row, future in zip(rows, futures, strict=True):
            try:
                lists.append(future.result())
            except ProviderError as error:
                self._drop(self.names[row], error)
                raise _DroppedError from error
        return lists

    def _usable(self, shares: Float[ndarray, " rows"]) -> tuple[Float[ndarray, " rows"], float]:
        """Shares of the rows that are called, and the total variation of leaving others out."""
        alive = np.array([not self._is_dropped(name) for name in self.names])
        left = np.where(alive, shares, 0.0)
        if left.sum() <= 0.0:
            raise ProviderError(
                f"No expert with a share is left after {len(self.log.running.tokens)} tokens: "
                f"{' '.join(self.notes)}"
            )
        used, _ = skip_small(left / left.sum(), threshold=self.settings.skip_below)
        return used, float(np.clip(1.0 - shares[used > 0].sum(), 0.0, 1.0))

    def _is_dropped(self, name: str) -> bool:
        return any(note.startswith(f"Expert {name!r} ") for note in self.notes)

    def _drop(self, name: str, error: ProviderError) -> None:
        n_tokens = len(self.log.running.tokens)
        pool = self.log.running.plan.pool
        if self.settings.on_failure == "fail" or pool.kind == "log_linear":
            raise ProviderError(
                f"The answer failed after {n_tokens} tokens: {error}",
                is_retryable=error.is_retryable,
            ) from error
        self.notes.append(
            f"Expert {name!r} was dropped after {n_tokens} tokens; from there on every token is "
            f"off by at most its share ({error})"
        )


class _DroppedError(Exception):
    """An endpoint was dropped; the step begins again without it."""
