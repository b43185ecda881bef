"""An engine over black-box experts: each expert is a model of some OpenAI-compatible server.

    one row, one expert       a completion of that expert's endpoint, or of the base's
    several rows              the endpoints' lists of log-probabilities, pooled here token by token;
                              the pooled token is off by at most sum_i share_i m_i in total
                              variation, m_i the probability that expert i did not list (M3)
    several rows, top_k: 0    the expert is sampled from the shares, then it samples the token: an
                              exact sample of the mixture with one call, at temperature one (M6)

Experts whose share is below a threshold are not called (M5); an expert that fails is dropped from
the rest of the answer with a note, or the answer fails. A row that is no expert alone (a soup of
parameters) cannot be executed and is refused, and so is an implicit soup's sampling by rejection:
it is executed as the explicit one, which has the same distribution.

Source: MoPE, arXiv 2407.04181; methods mope 15.1-15.3, M3, M5, M6.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from palate.core.errors import InvalidInputError, ProviderError
from palate.core.plan import Pool
from palate.core.protocols import SamplingParams
from palate.core.seeds import derive_seed, generator_for
from palate.engine.control import Controller
from palate.engine.listed import (
    ListStep,
    answer_from_lists,
    is_pooled,
    needs_whole_lists,
    skip_small,
)
from palate.engine.openai.endpoint import Endpoint, OpenAISettings
from palate.engine.parts import EngineParts
from palate.engine.protocol import ExecutionReport
from palate.engine.remote import AnswerLog, Emit, RemoteEngine
from palate.engine.request import RunningRequest
from palate.engine.sample import has_repetition_rules
from palate.models.load import Base

BASE = "base"  # the base's name among the endpoints; no expert has it


@dataclass(eq=False)
class OpenAIAnswer:
    """An answer under way; see `palate.engine.remote.RemoteAnswer`."""

    engine: "OpenAIEngine"
    log: AnswerLog  # its tokens so far
    names: Sequence[str]  # expert of each row
    dropped: dict[str, str] = field(default_factory=dict[str, str])  # by expert, a sentence on it
    n_calls: int = 0  # requests to endpoints

    def report(self) -> ExecutionReport:
        """What was approximated so far."""
        return replace(self.log.report(n_calls=self.n_calls), notes=tuple(self.dropped.values()))

    def steps(self) -> Generator[None]:
        """Emit all tokens, the last one with its finish; yields after each of the others.

        Raises:
            ProviderError: an endpoint failed and the answer is to fail, or no endpoint is left.
            NotCertifiedError: lists were too short for the budget.
        """
        settings = self.engine.settings
        if not is_pooled(self.log.running.plan):
            yield from self._from_endpoint()
        elif settings.top_k == 0:
            yield from self._from_samples()
        else:
            controllers = self.engine.controllers
            yield from answer_from_lists(self.log, settings, controllers, self._list_rows)

    def _from_endpoint(self) -> Iterator[None]:
        running, settings = self.log.running, self.engine.settings
        self.n_calls += 1
        steps = self._endpoint(0).stream(
            running.contexts[0],
            running.request.sampling,
            seed=running.request.seed,
            n_top=max(2, running.n_top) if settings.top_k else 0,
        )
        for token, log_prob, listed in steps:
            if self.log.accept(token, log_prob, listed):
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
        control_run = self.engine.controllers[name].start() if name is not None else None
        while True:
            place, shares = len(running.tokens), np.array(running.plan.pool.coefficients)
            if control_run is not None:
                shares = control_run.shares([running])[0].double().cpu().numpy()
            token, lost = self._sampled(shares, derive_seed(seed, "token", place), place)
            if self.log.accept(token, 0.0, {}, lost):  # the pooled probability is unknown
                return
            yield

    def _sampled(
        self, shares: Float[np.ndarray, " rows"], seed: int, place: int
    ) -> tuple[int, float]:
        """The next token from one row, and the total variation of rows that were left out."""
        running = self.log.running
        while True:
            used, lost = self._usable(shares)
            generator = generator_for(running.request.seed, "expert", place)
            row = int(generator.choice(len(used), p=used))
            context = [*running.contexts[row], *running.tokens]
            self.n_calls += 1
            try:
                return self._endpoint(row).sample(context, seed=seed), lost
            except ProviderError as error:
                self._drop(self.names[row], error)

    def _list_rows(self, pool: Pool, top_k: int) -> ListStep:
        if pool.kind == "log_linear":
            return ListStep(self._lists(range(len(self.names)), top_k), pool)
        while True:
            shares, lost = self._usable(np.array(pool.coefficients))
            rows = np.flatnonzero(shares).tolist()
            n_dropped = len(self.dropped)
            lists = self._lists(rows, top_k)
            if len(self.dropped) == n_dropped:
                return ListStep(lists, Pool("linear", tuple(shares.tolist())), lost)

    def _lists(self, rows: Sequence[int], top_k: int) -> list[dict[int, float]]:
        """A list for the next token of each of the plan's rows; empty ones for all but `rows`."""
        running = self.log.running
        futures = {
            row: self.engine.row_threads.submit(
                self._endpoint(row).next_log_probs,
                [*running.contexts[row], *running.tokens],
                top_k=top_k,
            )
            for row in rows
        }
        self.n_calls += len(futures)
        lists = [dict[int, float]() for _ in self.names]
        for row, future in futures.items():
            try:
                lists[row] = future.result()
            except ProviderError as error:
                self._drop(self.names[row], error)
        return lists

    def _endpoint(self, row: int) -> Endpoint:
        return self.engine.endpoints[self.names[row]]

    def _usable(
        self, shares: Float[np.ndarray, " rows"]
    ) -> tuple[Float[np.ndarray, " rows"], float]:
        """Shares of the rows that are called, and the total variation of leaving others out."""
        alive = np.array([name not in self.dropped for name in self.names])
        left = np.where(alive, shares, 0.0)
        if left.sum() <= 0.0:
            raise ProviderError(
                f"No expert with a share is left after {len(self.log.running.tokens)} tokens: "
                f"{' '.join(self.dropped.values())}"
            )
        used, _ = skip_small(left / left.sum(), threshold=self.engine.settings.skip_below)
        return used, float(np.clip(1.0 - shares[used > 0].sum(), 0.0, 1.0))

    def _drop(self, name: str, error: ProviderError) -> None:
        n_tokens = len(self.log.running.tokens)
        pool = self.log.running.plan.pool
        if self.engine.settings.on_failure == "fail" or pool.kind == "log_linear":
            raise ProviderError(
                f"The answer failed after {n_tokens} tokens: {error}",
                is_retryable=error.is_retryable,
            ) from error
        self.dropped[name] = (
            f"Expert {name!r} was dropped after {n_tokens} tokens; from there on every token is "
            f"off by at most its share ({error})"
        )


class OpenAIEngine(RemoteEngine):
    """Executes plans on black-box experts; see `palate.engine.protocol.Engine`."""

    name = "openai"

    def __init__(
        self,
        settings: OpenAISettings,
        base: Base,
        names: Sequence[str],
        endpoints: Mapping[str, Endpoint],
        *,
        controllers: Mapping[str, Controller] | None = None,
    ) -> None:
        """Keep the parts; `open_engine` makes them."""
        self.settings = settings
        self.base = base
        self.names = tuple(names)
        self.endpoints = dict(endpoints)
        self.controllers = dict(controllers or {})
        self.max_num_seqs = settings.max_concurrent
        self.row_threads = ThreadPoolExecutor(
            settings.max_concurrent, thread_name_prefix="palate-row"
        )

    def begin(self, running: RunningRequest, emit: Emit) -> OpenAIAnswer:
        """The answer to a request; see `palate.engine.remote.RemoteEngine`."""
        names = [self._endpoint_of(row.coefficients) for row in running.plan.rows]
        _require_possible(self, running)
        return OpenAIAnswer(self, AnswerLog(running, self.base, emit), names)

    def require_ready(self) -> None:
        """Return when every endpoint answers, otherwise ProviderError."""
        for endpoint in self.endpoints.values():
            endpoint.require_ready()

    def close(self) -> None:
        """End the threads; servers hold nothing of ours."""
        self.row_threads.shutdown(wait=False)

    def _endpoint_of(self, coefficients: Sequence[float]) -> str:
        """Name of the endpoint of a row: one expert with coefficient 1, or the base."""
        if len(coefficients) != len(self.names):
            raise InvalidInputError(
                f"The plan has {len(coefficients)} coefficients a row, but the engine has "
                f"{len(self.names)} experts; give one coefficient per expert."
            )
        active = [k for k, c in enumerate(coefficients) if c != 0.0]
        if len(active) > 1 or any(coefficients[k] != 1.0 for k in active):
            used = ", ".join(f"{self.names[k]} {coefficients[k]:g}" for k in active)
            raise InvalidInputError(
                f"A black box cannot mix experts in one pass ({used}); use a method whose rows are "
                "single experts, such as 'portfolio', 'output-soup' or 'mixture'."
            )
        name = self.names[active[0]] if active else BASE
        if name not in self.endpoints:
            raise InvalidInputError(
                f"The plan needs {name!r}, which has no endpoint; add it to `endpoints`."
            )
        return name


def check_settings(settings: OpenAISettings) -> OpenAISettings:
    """The settings, after their key was found; otherwise InvalidInputError."""
    _ = settings.api_key
    return settings


def open_engine(settings: OpenAISettings, parts: EngineParts) -> OpenAIEngine:
    """The engine for a library's experts, after every tokenizer was compared with the base's.

    Raises:
        InvalidInputError: an endpoint is of no expert.
        FormatError: a tokenizer differs; the message names both.
        ProviderError: a server fails.
    """
    names = tuple(parts.expert_folders)
    unknown = [name for name in settings.endpoints if name not in (*names, BASE)]
    if unknown:
        raise InvalidInputError(
            f"The endpoint {unknown[0]!r} is of no expert; known are {', '.join((BASE, *names))}."
        )
    endpoints = {
        name: Endpoint(endpoint, parts.base, settings)
        for name, endpoint in settings.endpoints.items()
    }
    for endpoint in endpoints.values():
        endpoint.require_same_tokenizer()
    return OpenAIEngine(settings, parts.base, names, endpoints, controllers=parts.controllers)


def _require_possible(engine: OpenAIEngine, running: RunningRequest) -> None:
    """Return when the engine can execute the request; refuse it in one sentence otherwise."""
    settings, plan, sampling = engine.settings, running.plan, running.request.sampling
    n_vocab, controller = engine.base.n_vocab, plan.pool.controller
    n_listed, has_rows = max(settings.top_k, settings.max_top_k), is_pooled(plan)
    is_plain = sampling == SamplingParams(max_tokens=sampling.max_tokens, stop=sampling.stop)
    rules = {
        f"The plan names the controller {controller!r}, which is not loaded.": controller
        is not None
        and controller not in engine.controllers,
        "Endpoints know no top_k and no repetition rules; leave them out, or use a method that "
        "pools several experts.": not has_rows
        and (sampling.top_k > 0 or has_repetition_rules(sampling)),
        "Endpoints without log-probabilities (top_k: 0) can be mixed linearly at temperature 1 "
        "without truncation only.": has_rows
        and settings.top_k == 0
        and not (is_plain and plan.pool.kind == "linear"),
        f"A log-linear pool with negative coefficients needs whole vocabularies, but top_k is "
        f"{n_listed} of {n_vocab}; raise it.": needs_whole_lists(plan) and n_listed < n_vocab,
        f"Who wrote a token of a mixture is known from whole vocabularies only, but top_k is "
        f"{n_listed} of {n_vocab}; raise it, or leave explain out.": running.is_traced
        and plan.pool.has_authors
        and n_listed < n_vocab,
        "Endpoints without log-probabilities (top_k: 0) list no probable tokens; leave them "
        "out.": running.n_top > 0 and settings.top_k == 0,
    }
    for sentence, is_broken in rules.items():
        if is_broken:
            raise InvalidInputError(sentence)
