"""Answering: from a request to a decision to jobs of the engine, for chats and completions alike.

`Library.decide` makes the decision. Every answer is one job, or as many as the decision has
candidates; `palate.serve.tokens` yields what they write and keeps the best candidate.
"""

import asyncio
import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from starlette.concurrency import run_in_threadpool

from palate.core.decision import Decision, Messages
from palate.core.errors import InvalidInputError
from palate.core.protocols import Request, SamplingParams
from palate.engine.batch import RunningRequest
from palate.library.candidates import candidate_requests
from palate.library.generate import answer_seed
from palate.serve.auth import Caller
from palate.serve.engine import engine_out
from palate.serve.errors import ApiError
from palate.serve.explain import explain
from palate.serve.known import known_of
from palate.serve.model_names import with_model
from palate.serve.state import Served
from palate.serve.wire.chat import PromptTokensDetails, Usage
from palate.serve.wire.palate import Explained, PalateIn, PalateOut, UtilityOut
from palate.serve.worker import Event, Job
from palate.store.responses import Response, record_response

CHARACTERS_A_TOKEN = 16  # a prompt with more characters than this for each allowed token is refused
MAX_SEED = 2**63


@dataclass(frozen=True)
class Ask:
    """One request for answers.

    Attributes:
        messages: A text, or a conversation.
        model: As it was named.
        palate: What is known of the user.
        sampling: How tokens are drawn.
        n: Answers.
        seed: Of all of them, or `None` for any.
        n_top: Most probable tokens to keep.
        prefix: Of the response's identifier.
    """

    messages: Messages
    model: str
    palate: PalateIn
    sampling: SamplingParams
    n: int = 1
    seed: int | None = None
    n_top: int = 0
    prefix: str = "chatcmpl"


@dataclass(eq=False)
class Answering:
    """Answers under way.

    Attributes:
        id: Of the response.
        created: Seconds since 1970.
        ask: The request.
        caller: Who asks.
        decision: The first answer's; all of one request have the same number of candidates.
        prompt: The request's own messages as text, without what a method added to them.
        out: For the client.
        jobs: One for each candidate, the candidates of an answer side by side.
        deadline: On the loop's clock.
        kept: Place in `jobs` by answer, of the candidate that is kept.
        leads: How far it led the second, by answer.
    """

    id: str
    created: int
    ask: Ask
    caller: Caller
    decision: Decision
    prompt: str
    out: PalateOut
    jobs: list[Job]
    started: float
    deadline: float
    kept: dict[int, int] = field(default_factory=dict[int, int])
    leads: dict[int, float] = field(default_factory=dict[int, float])

    @property
    def n_candidates(self) -> int:
        """Jobs of each answer."""
        return self.decision.n_candidates

    @property
    def candidates(self) -> list[RunningRequest]:
        """What the engine knows of every candidate that was admitted."""
        return [job.running for job in self.jobs if job.running is not None]

    @property
    def answers(self) -> list[RunningRequest]:
        """What the engine knows of the answers that are given; all have ended."""
        if self.n_candidates == 1:
            return self.candidates
        jobs = [self.jobs[self.kept[answer]] for answer in sorted(self.kept)]
        return [job.running for job in jobs if job.running is not None]

    def usage(self) -> Usage:
        """Tokens read and sampled so far, those of candidates that are not kept included."""
        running_requests = self.candidates
        read = len(running_requests[0].prompt) if running_requests else 0
        written = sum(len(running.tokens) for running in running_requests)
        cached = PromptTokensDetails(
            cached_tokens=running_requests[0].n_cached_tokens if running_requests else 0
        )
        return Usage(
            prompt_tokens=read,
            completion_tokens=written,
            total_tokens=read + written,
            prompt_tokens_details=cached,
        )


async def begin(served: Served, caller: Caller, ask: Ask) -> Answering:
    """Decide, and let the answers join the batch.

    Raises:
        ApiError: the model or the method are refused, or too many wait.
        InvalidInputError: what is known of the user does not fit the library or the method.
    """
    palate = with_model(ask.palate, ask.model, methods=served.methods)
    _require_method(served, palate.method)
    _require_short(served, ask.messages)
    known, learning, n_feedback = await known_of(served, caller, palate)
    decision = await run_in_threadpool(
        lambda: served.library.decide(
            ask.messages, known, method=palate.method, n_candidates=palate.n_candidates
        )
    )
    seed = secrets.randbits(53) if ask.seed is None else ask.seed % MAX_SEED
    answering = await begin_decided(
        served, caller, replace(ask, palate=palate), [decision] * ask.n, seed=seed
    )
    served.metrics.beliefs.labels(learning).inc(ask.n)
    out = answering.out.model_copy(update={"learning": learning, "n_feedback": n_feedback})
    return replace(answering, out=out)


async def begin_decided(
    served: Served, caller: Caller, ask: Ask, decisions: Sequence[Decision], *, seed: int
) -> Answering:
    """Let one answer for each decision join the batch.

    Raises:
        ApiError: too many wait.
        InvalidInputError: the base has no form for the conversation.
    """
    started = asyncio.get_running_loop().time()
    prompt, *texts = await run_in_threadpool(
        lambda: [served.library.format(m) for m in (ask.messages, *(d.messages for d in decisions))]
    )
    jobs = _jobs(caller, ask, list(zip(texts, decisions, strict=True)), seed=seed)
    served.worker.submit(jobs)
    first = decisions[0]
    served.metrics.answers.labels(first.method).inc(len(decisions))
    identifier = f"{ask.prefix}-{uuid.uuid4().hex}"
    return Answering(
        id=identifier,
        created=int(time.time()),
        ask=ask,
        caller=caller,
        decision=first,
        prompt=prompt,
        out=_out(first, ask, response=identifier if ask.palate.user else None, seed=seed),
        jobs=jobs,
        started=started,
        deadline=started + served.settings.deadline_seconds,
    )


async def finish(served: Served, answering: Answering) -> list[Explained | None]:
    """Keep what was shown, so that feedback can refer to it; say who wrote what, if asked."""
    ask, running_requests = answering.ask, answering.answers
    if ask.palate.user is not None:
        await keep(served, answering, ask.palate.user)
    if not ask.palate.explain:
        return [None] * len(running_requests)
    base, bank = served.engine.base, served.engine.bank
    stories = await served.worker.call(
        lambda: [explain(base, bank, running) for running in running_requests]
    )
    return [Explained(tokens=story) for story in stories]


def accounted(served: Served, answering: Answering) -> PalateOut:
    """How the answers came about, with what another engine approximated and what was ranked."""
    found = [served.worker.account(running) for running in answering.candidates]
    accounts = [account for account in found if account is not None]
    changes: dict[str, object] = {}
    if accounts:
        changes["engine"] = engine_out(accounts, names=served.engine.bank.names)
    if answering.leads:
        changes["lead"] = min(answering.leads.values())
    return answering.out.model_copy(update=changes)


def waiting(served: Served, answering: Answering) -> PalateOut:
    """As `accounted`, for the first chunk of a stream: it says whether candidates are drawn."""
    is_waiting = answering.n_candidates > 1
    return accounted(served, answering).model_copy(update={"is_waiting": is_waiting})


def headers_of(answering: Answering) -> dict[str, str]:
    """How the answers came about, for whoever sees the response but not its body."""
    out = answering.out
    found = {"X-Palate-Method": out.method, "X-Palate-Learning": out.learning}
    if out.certified_loss is not None:
        found["X-Palate-Certified-Loss"] = f"{out.certified_loss:.6g}"
    return found


async def keep(served: Served, answering: Answering, user: str) -> None:
    """Record the response.

    The prompt is the user's own, so that answers by different methods can be compared and their
    features speak of the same question.
    """
    running_requests, decision = answering.answers, answering.decision
    response = Response(
        id=answering.id,
        user=user,
        prompt=answering.prompt,
        shown=tuple(running.text.text for running in running_requests),
        features=(),
        method=decision.method,
        coefficients=dict(decision.coefficients),
        seed=answering.out.seed,
        tokens=tuple(tuple(running.tokens) for running in running_requests),
    )
    tenant = answering.caller.tenant
    await served.in_database(lambda: record_response(served.database, response, tenant=tenant))


def _jobs(
    caller: Caller, ask: Ask, answers: Sequence[tuple[str, Decision]], *, seed: int
) -> list[Job]:
    """One job for each candidate of each answer, the answer's text beside its decision."""
    events: asyncio.Queue[tuple[Job, Event]] = asyncio.Queue()
    requests: list[Request] = []
    for place, (text, decision) in enumerate(answers):
        request = Request(
            text,
            decision.plan,
            ask.sampling,
            answer_seed(seed, place=place),
            scope=caller.tenant,
        )
        requests += candidate_requests(request, n=decision.n_candidates)
    return [
        Job(request, is_traced=ask.palate.explain, n_top=ask.n_top, events=events)
        for request in requests
    ]


def _out(decision: Decision, ask: Ask, *, response: str | None, seed: int) -> PalateOut:
    utility = decision.predicted_utility
    return PalateOut(
        response=response,
        user=ask.palate.user,
        method=decision.method,
        members=[name for name, value in decision.coefficients.items() if value != 0.0],
        coefficients=dict(decision.coefficients),
        reason=decision.reason,
        certified_loss=decision.certified_loss,
        predicted_utility=None
        if utility is None
        else UtilityOut(estimate=utility.estimate, low=utility.low, high=utility.high),
        n_candidates=decision.n_candidates,
        n_passes=decision.n_passes,
        learning="nothing",
        n_feedback=0,
        seed=seed,
    )


def _require_method(served: Served, name: str) -> None:
    """Refuse a method that the library does not know, before anything is looked up.

    Raises:
        ApiError: it is refused, in the library's own sentence.
    """
    try:
        served.library.method_named(name)
    except InvalidInputError as error:
        raise ApiError(400, str(error), code="invalid_value", param="palate.method") from error


def _require_short(served: Served, messages: Messages) -> None:
    """Refuse prompts that are too long before they are read token by token."""
    texts = [messages] if isinstance(messages, str) else [m["content"] for m in messages]
    n_characters, limit = sum(map(len, texts)), served.settings.max_prompt_tokens
    if n_characters > CHARACTERS_A_TOKEN * limit:
        raise ApiError(
            400,
            f"The prompt has {n_characters} characters, too many for {limit} tokens; shorten it.",
            code="context_length_exceeded",
            param="messages",
        )
