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

Source:
    MoPE, arXiv 2407.04181; methods mope 15.1-15.3, M3, M5, M6.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from palate.core.errors import InvalidInputError
from palate.core.protocols import SamplingParams
from palate.engine.control import Controller
from palate.engine.listed import is_pooled, needs_whole_lists
from palate.engine.openai.answer import OpenAIAnswer
from palate.engine.openai.endpoint import Endpoint, OpenAISettings
from palate.engine.parts import EngineParts
from palate.engine.protocol import Engine
from palate.engine.remote import AnswerLog, Emit, RemoteSession, vocabulary_size
from palate.engine.request import RunningRequest
from palate.engine.sample import has_repetition_rules
from palate.models.load import Base

BASE = "base"  # the base's name among the endpoints; no expert has it


class OpenAIEngine(Engine):
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
        self._row_threads = ThreadPoolExecutor(
            settings.max_concurrent, thread_name_prefix="palate-row"
        )

    def open_session(self) -> RemoteSession:
        """A new session."""
        return RemoteSession(self)

    def begin(self, running: RunningRequest, emit: Emit) -> OpenAIAnswer:
        """The answer to a request; see `palate.engine.remote.AnswerMaker`."""
        names = [self._endpoint_of(row.coefficients) for row in running.plan.rows]
        _require_possible(self, running)
        return OpenAIAnswer(
            self.settings,
            AnswerLog(running, self.base, emit),
            names,
            [self.endpoints[name] for name in names],
            self.controllers,
            self._row_threads,
        )

    def require_ready(self) -> None:
        """Return when every endpoint answers, otherwise ProviderError."""
        for endpoint in self.endpoints.values():
            endpoint.require_ready()

    def close(self) -> None:
        """End the threads; servers hold nothing of ours."""
        self._row_threads.shutdown(wait=False)

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
    n_vocab, controller = vocabulary_size(engine.base), plan.pool.controller
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
        and plan.pool.kind == "linear"
        and n_listed < n_vocab,
        "Endpoints without log-probabilities (top_k: 0) list no probable tokens; leave them "
        "out.": running.n_top > 0 and settings.top_k == 0,
    }
    for sentence, is_broken in rules.items():
        if is_broken:
            raise InvalidInputError(sentence)
