"""Answers under way: from a request to a decision to jobs of the engine, and to what is recorded.

`Library.decide` makes the decision. Every answer is one job, or as many as the decision has
candidates; `palate.serve.tokens` yields their tokens and ranks the candidates.
"""

import asyncio
import math
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from starlette.concurrency import run_in_threadpool

from palate.core.decision import Decision, Known, Messages
from palate.core.errors import InvalidInputError
from palate.core.protocols import Constraint, Request, SamplingParams
from palate.engine.constrain import json_constraint
from palate.engine.protocol import ExecutionReport
from palate.engine.request import RunningRequest
from palate.library.candidates import Best, candidate_requests
from palate.library.generate import answer_seed
from palate.library.knowledge import merged
from palate.models.chat import encode_prompt, without_special_tokens
from palate.models.load import Base
from palate.serve.errors import ApiError
from palate.serve.explain import explain
from palate.serve.settings import ServeSettings
from palate.serve.state import Served
from palate.serve.wire import palate as wire
from palate.serve.wire.chat import ChatIn, CompletionIn, Usage
from palate.serve.worker import Event, Job
from palate.store.responses import Response, record_response

CHARACTERS_A_TOKEN = 16  # a prompt with more characters than this for each allowed token is refused
MAX_SEED = 2**63
MODEL, AUTO = "palate", "auto"  # `palate` lets the request name a method, `palate/METHOD` fixes it


@dataclass(eq=False)
class Answering:
    """The answers to one request: the one record from the decision to the end of the response."""

    id: str  # identifier of the response
    tenant: str
    user: str | None
    number: int | None  # the user's when this was begun; who was erased since gets no record
    messages: Messages
    decision: Decision  # the first answer's; all of one request have the same number of candidates
    seed: int
    n_own_tokens: int = 0  # of the prompt, in whole blocks, that this user sent before
    learning: wire.LearningState = "nothing"  # how answers use what was learned of the user
    n_feedback: int = 0  # items of feedback that the belief rests on
    prompt: str = ""  # the request's own messages as text, without what a method added to them
    jobs: list[Job] = field(default_factory=list[Job])  # candidates of an answer side by side
    best: dict[int, Best] = field(default_factory=dict[int, Best])  # by answer, of several
    started: float = 0.0  # on the loop's clock, as `deadline`
    deadline: float = 0.0
    created: int = field(default_factory=lambda: int(time.time()))  # seconds since 1970

    @property
    def owner(self) -> tuple[str, str | None]:
        """Who sent this."""
        return (self.tenant, self.user)

    @property
    def candidates(self) -> list[RunningRequest]:
        """What the engine knows of every candidate that was admitted."""
        return [job.running for job in self.jobs if job.running is not None]

    @property
    def answers(self) -> list[RunningRequest]:
        """What the engine knows of the answers that are given; all have ended."""
        n, candidates = self.decision.n_candidates, self.candidates
        if n == 1:
            return candidates
        return [candidates[place * n + best.index] for place, best in sorted(self.best.items())]


def model_names(methods: Sequence[str]) -> list[str]:
    """What can be given as `model`."""
    return [MODEL, *(f"{MODEL}/{method}" for method in methods if method != AUTO)]


def unknown_model(name: str) -> ApiError:
    """The refusal of a name that is none of them."""
    message = f"The model {name[:80]!r} does not exist; see /v1/models."
    return ApiError(404, message, code="model_not_found", param="model")


async def begin(
    served: Served, tenant: str, request: ChatIn | CompletionIn, *, prefix: str
) -> Answering:
    """Decide, and let the answers join the batch.

    Raises:
        ApiError: the model, the method or a length are refused, or too many wait.
        InvalidInputError: what is known of the user does not fit the library or the method.
    """
    palate, messages = request.palate, as_text(served, request.conversation)
    sampling = _sampling_of(request, served)
    method = _method_of(served, request.model, palate.method)
    _require_short(served, messages)
    constraint = await run_in_threadpool(_constraint_of, served, request)
    number = None
    if request.user_name is not None:
        number = await served.admit(tenant, request.user_name)
    known, learning, n_feedback = await _known_of(served, tenant, request.user_name, palate)
    decision = await run_in_threadpool(
        lambda: served.library.decide(
            messages, known, method=method, n_candidates=palate.n_candidates
        )
    )
    answering = Answering(
        id=new_id(prefix),
        tenant=tenant,
        user=request.user_name,
        number=number,
        messages=messages,
        decision=decision,
        seed=seed_of(request.seed),
        learning=learning,
        n_feedback=n_feedback,
    )
    decisions = [decision] * (request.n or 1)
    form = Request(
        "",
        decision.plan,
        sampling,
        constraint=constraint,
        logit_bias={int(token): bias for token, bias in (request.logit_bias or {}).items()},
    )
    await submit(served, answering, decisions, form, n_top=request.n_top, is_traced=palate.explain)
    for metrics in served.metrics_of(tenant):
        metrics.beliefs.labels(learning).inc(len(decisions))
    return answering


async def submit(
    served: Served,
    answering: Answering,
    decisions: Sequence[Decision],
    form: Request,
    *,
    n_top: int = 0,
    is_traced: bool = False,
) -> None:
    """Let one answer for each decision join the batch, sampled as `form` says.

    Raises:
        ApiError: too many wait.
        InvalidInputError: the base has no form for the conversation.
    """
    answering.started = asyncio.get_running_loop().time()
    answering.deadline = answering.started + served.settings.deadline_seconds
    conversations = [answering.messages, *(decision.messages for decision in decisions)]
    answering.prompt, *prompts = await run_in_threadpool(_read, served, conversations)
    answering.n_own_tokens = served.own_prefixes.count(answering.owner, prompts[0][1])
    requests: list[Request] = []
    for place, ((text, tokens), decision) in enumerate(zip(prompts, decisions, strict=True)):
        seed, scope = answer_seed(answering.seed, place=place), served.scope(answering.tenant)
        own = {"prompt": text, "plan": decision.plan, "tokens": tokens}
        request = replace(form, **own, seed=seed, scope=scope)
        requests += candidate_requests(request, n=decision.n_candidates)
    events: asyncio.Queue[tuple[Job, Event]] = asyncio.Queue()
    answering.jobs = [
        Job(request, is_traced=is_traced, n_top=n_top, events=events) for request in requests
    ]
    served.worker.submit(answering.jobs, served.engine)
    for metrics in served.metrics_of(answering.tenant):
        metrics.answers.labels(answering.decision.method).inc(len(decisions))


def _read(served: Served, conversations: Sequence[Messages]) -> list[Any]:
    """The first conversation as text, the others as text and tokens, each tokenised once."""
    base, ids = served.library.base, dict[str, tuple[int, ...]]()
    first, *texts = [served.library.format(as_text(served, one)) for one in conversations]
    for text in texts:
        ids[text] = ids.get(text) or tuple(encode_prompt(base, text))
    return [first, *((text, ids[text]) for text in texts)]


def as_text(served: Served, messages: Messages) -> Messages:
    """What a user writes is text, also where it looks like a model's special tokens."""
    base = served.library.base
    if served.settings.allow_special_tokens:
        return messages
    if isinstance(messages, str):
        return without_special_tokens(base, messages)
    return [{**_all_text(base, m), "role": m["role"]} for m in messages]


def _all_text(base: Base, value: Any) -> Any:
    """Plain data with all of its texts as text: tools and their calls are written by users."""
    if isinstance(value, str):
        return without_special_tokens(base, value)
    if isinstance(value, Mapping):
        pairs = cast(Mapping[str, Any], value).items()
        return {_all_text(base, key): _all_text(base, inner) for key, inner in pairs}
    return [_all_text(base, one) for one in value] if isinstance(value, list) else value


async def finish(
    served: Served, answering: Answering, *, is_explained: bool
) -> list[wire.Explained | None]:
    """Record the answers to a named user, for feedback; the tokens' authors, if wanted."""
    answers, decision = answering.answers, answering.decision
    for running in answers:
        served.own_prefixes.count(answering.owner, (*running.prompt, *running.tokens))
    if answering.user is not None:
        sums = tuple(running.sampled_log_prob for running in answers)
        response = Response(
            id=answering.id,
            user=answering.user,
            prompt=answering.prompt,  # the user's own, so that methods can be compared
            shown=tuple(running.text.text for running in answers),
            features=(),
            method=decision.method,
            coefficients=dict(decision.coefficients),
            seed=answering.seed,
            tokens=tuple(tuple(running.tokens) for running in answers),
            log_probs=sums if decision.n_candidates == 1 and math.isfinite(sum(sums)) else None,
        )
        owner = {"tenant": answering.tenant, "number": answering.number}
        await served.write(record_response, response=response, **owner)
    if not is_explained:
        return [None] * len(answers)
    base, bank = served.library.base, served.library.bank
    return await served.worker.call(
        lambda: [wire.Explained(tokens=explain(base, bank, running)) for running in answers]
    )


def palate_out(served: Served, answering: Answering, *, is_waiting: bool = False) -> wire.PalateOut:
    """How the answers came about, as far as it is known by now."""
    decision, utility = answering.decision, answering.decision.predicted_utility
    engine = served.engine
    accounts = [served.worker.report(running, engine) for running in answering.candidates]
    reports = [report for report in accounts if report is not None]
    return wire.PalateOut(
        response=answering.id if answering.user else None,
        user=answering.user,
        method=decision.method,
        members=[name for name, value in decision.coefficients.items() if value != 0.0],
        coefficients=dict(decision.coefficients),
        reason=decision.reason,
        certified_loss=decision.certified_loss,
        predicted_utility=None
        if utility is None
        else wire.UtilityOut(estimate=utility.estimate, low=utility.low, high=utility.high),
        n_candidates=decision.n_candidates,
        lead=min((best.lead for best in answering.best.values()), default=None),
        n_passes=decision.n_passes,
        is_waiting=is_waiting and decision.n_candidates > 1,
        learning=answering.learning,
        n_feedback=answering.n_feedback,
        seed=answering.seed,
        engine=engine_out(served.engine.name, reports, experts=served.library.bank.names)
        if reports
        else None,
    )


def usage_of(answering: Answering) -> Usage:
    """Tokens of the prompt and of all answers so far, of all candidates."""
    candidates = answering.candidates
    n_read = len(candidates[0].prompt) if candidates else 0
    n_cached = candidates[0].n_cached_tokens if candidates else 0
    n_written = sum(len(running.tokens) for running in candidates)
    return Usage(
        prompt_tokens=n_read,
        completion_tokens=n_written,
        total_tokens=n_read + n_written,
        # not what others of the tenant sent
        prompt_tokens_details={"cached_tokens": min(n_cached, answering.n_own_tokens)},
    )


def headers_of(answering: Answering) -> dict[str, str]:
    """How the answers came about, for whoever sees the response but not its body."""
    decision = answering.decision
    headers = {"X-Palate-Method": decision.method, "X-Palate-Learning": answering.learning}
    if decision.certified_loss is not None:
        headers["X-Palate-Certified-Loss"] = f"{decision.certified_loss:.6g}"
    return headers


def new_id(prefix: str) -> str:
    """A new identifier of a response."""
    return f"{prefix}-{uuid.uuid4().hex}"


def seed_of(seed: int | None) -> int:
    """The seed that was given, or a new one."""
    return secrets.randbits(53) if seed is None else seed % MAX_SEED


def require_tokens(n_tokens: int | None, settings: ServeSettings) -> None:
    """Refuse answers longer than the server allows with ApiError."""
    if n_tokens is not None and n_tokens > settings.max_tokens:
        message = f"{n_tokens} tokens are too many: an answer has at most {settings.max_tokens}."
        raise ApiError(400, message, code="invalid_value", param="max_tokens")


def _sampling_of(request: ChatIn | CompletionIn, served: Served) -> SamplingParams:
    """What the request states; the temperature is else the library's."""
    settings = served.settings
    require_tokens(request.n_tokens, settings)
    stated = {
        name: value
        for name in ("repetition_penalty", "temperature", "top_k", "top_p")
        if (value := getattr(request, name)) is not None
    }
    n_tokens = request.n_tokens or min(settings.default_tokens, settings.max_tokens)
    return replace(served.library.sampling, max_tokens=n_tokens, stop=request.stops, **stated)


def _constraint_of(served: Served, request: ChatIn | CompletionIn) -> Constraint | None:
    """What keeps the answer to the form that is asked for; ApiError where there is no such form."""
    if request.schema_of_answer is None:
        return None
    try:
        return json_constraint(served.library.base, request.schema_of_answer)
    except InvalidInputError as error:
        param = "tools" if getattr(request, "tools", None) else "response_format"
        raise ApiError(400, str(error), "invalid_value", param) from error


def _method_of(served: Served, model: str, method: str) -> str:
    """The method that the model's name fixes, or else the request's."""
    if model not in model_names(served.methods):
        raise unknown_model(model)
    _, _, fixed = model.partition("/")
    if fixed and method not in (AUTO, fixed):
        message = f"The model {model!r} and the method {method[:80]!r} disagree; give one of them."
        raise ApiError(400, message, code="invalid_value", param="palate.method")
    try:
        return served.library.method_named(fixed or method).name
    except InvalidInputError as error:
        raise ApiError(400, str(error), code="invalid_value", param="palate.method") from error


def _require_short(served: Served, messages: Messages) -> None:
    """Refuse prompts that are too long before they are tokenised."""
    texts = [messages] if isinstance(messages, str) else [m["content"] for m in messages]
    n_characters, limit = sum(map(len, texts)), served.settings.max_prompt_tokens
    if n_characters > CHARACTERS_A_TOKEN * limit:
        message = (
            f"The prompt has {n_characters} characters, too many for {limit} tokens; shorten it."
        )
        raise ApiError(400, message, "context_length_exceeded", "messages")


async def _known_of(
    served: Served, tenant: str, user: str | None, palate: wire.PalateIn
) -> tuple[Known, wire.LearningState, int]:
    """What a method may decide from, whether a belief is in it, and the feedback it rests on."""
    given = Known(
        preference=palate.preference,
        coefficients=palate.coefficients,
        instruction=str(as_text(served, palate.instruction or "")).strip() or None,
        strength=palate.strength,
        max_passes=palate.max_passes,
    )
    if user is None:
        return given, "nothing", 0
    believer, store = served.believer, served.store(tenant)
    stored, belief = await served.in_database(
        lambda: store.known(user, apply_after=believer.apply_after)
    )
    learning = believer.learning(belief)
    if learning == "applied" and not (given.preference is given.coefficients is None):
        learning = "observing"  # what the request states goes before
    return merged(given, stored), learning, 0 if belief is None else belief.n_observations


def engine_out(
    name: str, reports: Sequence[ExecutionReport], *, experts: Sequence[str]
) -> wire.EngineOut:
    """Bounds on several answers to one request: the largest of each kind."""
    rows, bounds = reports[0].coefficients, [one.rounding_bound for one in reports]
    known = [bound for bound in bounds if bound is not None]
    return wire.EngineOut(
        name=name,
        coefficients=dict(zip(experts, rows[0], strict=True)) if len(rows) == 1 else None,
        parameter_change=max(one.parameter_change for one in reports),
        rounding_bound=max(known) if len(known) == len(bounds) else None,
        list_bound=max((bound for one in reports for bound in one.list_bounds), default=0.0),
        is_exact=all(one.is_exact for one in reports),
        n_certified=sum(sum(one.certified) for one in reports),
        n_calls=sum(one.n_calls for one in reports),
        notes=[note for one in reports for note in one.notes],
    )
