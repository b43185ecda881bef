"""Answering: from what is asked to tokens, for chats and completions alike."""

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace

from starlette.concurrency import run_in_threadpool

from palate.core.protocols import Request, Sampling, Token
from palate.core.seeds import derive_seed
from palate.core.types import Belief
from palate.models.batch import Live
from palate.profiles.persons import find
from palate.profiles.responses import Response, record_response
from palate.serve.auth import Caller
from palate.serve.engine import engine_out
from palate.serve.errors import ApiError
from palate.serve.explain import explain
from palate.serve.state import Served
from palate.serve.ways import Decided, Wanted
from palate.serve.wire.chat import PromptTokensDetails, Usage
from palate.serve.wire.palate import Explained, LearningState, PalateIn, PalateOut, Way
from palate.serve.worker import Event, Job

CHARACTERS_A_TOKEN = 16  # a prompt with more characters than this for each allowed token is refused
MODEL = "palate"
MAX_SEED = 2**63

Messages = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Ask:
    """One request for answers.

    Attributes:
        messages: A text, or a conversation.
        model: As it was named.
        palate: What is known of the person.
        sampling: How tokens are drawn.
        n: Answers.
        seed: Of all of them, or `None` for any.
        n_top: Most probable tokens to keep.
        prefix: Of the response's identifier.
    """

    messages: Messages
    model: str
    palate: PalateIn
    sampling: Sampling
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
        ask: What was asked.
        caller: Who asked.
        decided: Plan and why.
        out: For the client.
        jobs: One for each answer.
        deadline: On the loop's clock.
    """

    id: str
    created: int
    ask: Ask
    caller: Caller
    decided: Decided
    out: PalateOut
    jobs: list[Job]
    started: float
    deadline: float

    @property
    def lives(self) -> list[Live]:
        """What the engine knows of each answer; all have been admitted."""
        return [job.live for job in self.jobs if job.live is not None]

    def usage(self) -> Usage:
        """Tokens read and written so far."""
        lives = self.lives
        read = len(lives[0].prompt) if lives else 0
        written = sum(len(live.tokens) for live in lives)
        known = PromptTokensDetails(cached_tokens=lives[0].n_reused if lives else 0)
        return Usage(
            prompt_tokens=read,
            completion_tokens=written,
            total_tokens=read + written,
            prompt_tokens_details=known,
        )


@dataclass(frozen=True, eq=False)
class Drawn:
    """One token of one answer.

    Attributes:
        index: Of the answer.
        place: Of the token in it.
        live: What the engine knows; it may be tokens ahead.
        token: The token.
    """

    index: int
    place: int
    live: Live
    token: Token


async def begin(served: Served, caller: Caller, ask: Ask) -> Answering:
    """Decide on a plan and let the answers join the batch.

    Raises:
        ApiError: the model or the person's data are refused, or too many wait.
        InvalidInputError: the preference, coefficients or way do not fit the library.
    """
    palate = with_model(ask.palate, ask.model)
    _require_short(served, ask.messages)
    wanted, learning, n_feedback = await known_of(served, caller, palate)
    decided = await run_in_threadpool(served.ways.decide, ask.messages, wanted)
    seed = secrets.randbits(53) if ask.seed is None else ask.seed % MAX_SEED
    answering = begin_decided(
        served, caller, replace(ask, palate=palate), [decided] * ask.n, seed=seed
    )
    served.metrics.beliefs.labels(learning).inc(ask.n)
    out = answering.out.model_copy(update={"learning": learning, "n_feedback": n_feedback})
    return replace(answering, out=out)


def begin_decided(
    served: Served, caller: Caller, ask: Ask, decided: Sequence[Decided], *, seed: int
) -> Answering:
    """Let one answer for each plan join the batch.

    Raises:
        ApiError: too many wait.
    """
    started = asyncio.get_running_loop().time()
    identifier = f"{ask.prefix}-{uuid.uuid4().hex}"
    events: asyncio.Queue[tuple[Job, Event]] = asyncio.Queue()
    jobs = [
        Job(
            Request(
                one.prompt,
                one.plan,
                ask.sampling,
                derive_seed(seed, "answer", place),
                scope=caller.tenant,
            ),
            is_traced=ask.palate.explain,
            n_top=ask.n_top,
            events=events,
        )
        for place, one in enumerate(decided)
    ]
    served.worker.submit(jobs)
    first = decided[0]
    served.metrics.answers.labels(first.way).inc(len(jobs))
    out = PalateOut(
        response=identifier if ask.palate.person else None,
        person=ask.palate.person,
        way=first.way,
        members=[name for name, value in first.coefficients.items() if value != 0.0],
        coefficients=first.coefficients,
        why=first.why,
        certified_loss=first.certified_loss,
        learning="nothing",
        n_feedback=0,
        seed=seed,
    )
    return Answering(
        id=identifier,
        created=int(time.time()),
        ask=ask,
        caller=caller,
        decided=first,
        out=out,
        jobs=jobs,
        started=started,
        deadline=started + served.settings.deadline_seconds,
    )


async def tokens(served: Served, answering: Answering) -> AsyncIterator[Drawn]:
    """Every token of every answer as it comes; at the end, all answers are let go of.

    Raises:
        ApiError: the deadline passed, or the engine failed.
        InvalidInputError: the engine refused the request.
    """
    loop = asyncio.get_running_loop()
    place = {job: index for index, job in enumerate(answering.jobs)}
    queue, left = answering.jobs[0].events, len(answering.jobs)
    first: dict[int, float] = {}
    counts = [0] * left
    try:
        while left:
            job, event = await _next(queue, answering.deadline - loop.time())
            if isinstance(event, Exception):
                raise event
            index, (live, token) = place[job], event
            first.setdefault(index, loop.time())
            if token.finish is not None:
                left -= 1
                _count(served, answering, live, first[index], loop.time())
            counts[index] += 1
            yield Drawn(index, counts[index] - 1, live, token)
    finally:
        for job in answering.jobs:
            served.worker.cancel(job)


async def finish(served: Served, answering: Answering) -> list[Explained | None]:
    """Keep what was shown, so that feedback can refer to it; say who wrote what, if asked."""
    ask, lives = answering.ask, answering.lives
    if ask.palate.person is not None:
        await keep(served, answering, ask.palate.person)
    if not ask.palate.explain:
        return [None] * len(lives)
    base, bank = served.engine.base, served.engine.bank
    found = await served.worker.call(lambda: [explain(base, bank, live) for live in lives])
    return [Explained(tokens=story) for story in found]


def accounted(served: Served, answering: Answering) -> PalateOut:
    """How the answers came about, with what another engine than this process approximated."""
    found = [served.worker.account(live) for live in answering.lives]
    accounts = [account for account in found if account is not None]
    if not accounts:
        return answering.out
    said = engine_out(accounts, names=served.engine.bank.names)
    return answering.out.model_copy(update={"engine": said})


def headers_of(answering: Answering) -> dict[str, str]:
    """How the answers came about, for whoever sees the response but not its body."""
    out = answering.out
    found = {"X-Palate-Way": out.way, "X-Palate-Learning": out.learning}
    if out.certified_loss is not None:
        found["X-Palate-Certified-Loss"] = f"{out.certified_loss:.6g}"
    return found


async def keep(served: Served, answering: Answering, person: str) -> None:
    """Record the response."""
    lives = answering.lives
    response = Response(
        id=answering.id,
        person=person,
        prompt=answering.decided.prompt,
        shown=tuple(live.text.text for live in lives),
        features=(),
        way=answering.decided.way,
        coefficients=answering.decided.coefficients,
        seed=answering.out.seed,
        tokens=tuple(tuple(live.tokens) for live in lives),
    )
    tenant = answering.caller.tenant
    await served.in_database(lambda: record_response(served.database, response, tenant=tenant))


async def known_of(
    served: Served, caller: Caller, palate: PalateIn
) -> tuple[Wanted, LearningState, int]:
    """What is asked for, or else what was learned, or else what the person stated."""
    strength = served.settings.strength if palate.strength is None else palate.strength
    given = Wanted(palate.way, palate.preference, palate.coefficients, strength)
    if palate.person is None:
        return given, "nothing", 0
    person, tenant = palate.person, caller.tenant
    belief = await served.in_database(lambda: served.store(tenant).belief(person))
    n_feedback = belief.n_observations if belief is not None else 0
    if palate.preference is not None or palate.coefficients is not None:
        state = served.believer.state(belief)
        return given, "observing" if state == "applied" else state, n_feedback
    state = served.believer.state(belief)
    if state == "applied" and belief is not None:
        return await run_in_threadpool(_learned, served, palate.way, belief), state, n_feedback
    stated = await served.in_database(lambda: find(served.database, tenant=tenant, name=person))
    if stated is not None and stated.preference is not None:
        return Wanted(palate.way, stated.preference, None, strength), state, n_feedback
    return given, state, n_feedback


def with_model(palate: PalateIn, model: str) -> PalateIn:
    """The way that the model's name fixes.

    Raises:
        ApiError: there is no such model, or it and `way` disagree.
    """
    name, _, way = model.partition("/")
    ways: dict[str, Way] = {
        "base": "base",
        "portfolio": "portfolio",
        "soup": "soup",
        "output-soup": "output-soup",
        "mixture": "mixture",
    }
    if name != MODEL or (way and way not in ways) or model.endswith("/"):
        message = f"The model {model[:80]!r} does not exist; see /v1/models."
        raise ApiError(404, message, code="model_not_found", param="model")
    if not way:
        return palate
    if palate.way not in ("auto", way):
        message = f"The model {model!r} and the way {palate.way!r} disagree; give one of them."
        raise ApiError(400, message, code="invalid_value", param="palate.way")
    return palate.model_copy(update={"way": ways[way]})


def _learned(served: Served, way: Way, belief: Belief) -> Wanted:
    believer = served.believer
    return Wanted(
        way,
        believer.preference(belief),
        believer.coefficients(belief),
        is_learned=True,
    )


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


async def _next(queue: "asyncio.Queue[tuple[Job, Event]]", seconds: float) -> tuple[Job, Event]:
    if not queue.empty():
        return queue.get_nowait()
    try:
        return await asyncio.wait_for(queue.get(), max(seconds, 0.0))
    except TimeoutError as error:
        raise ApiError(
            504, "The answer was not ready before its deadline.", code="deadline_exceeded"
        ) from error


def _count(served: Served, answering: Answering, live: Live, first: float, now: float) -> None:
    """Let the metrics know of an answer that ended."""
    metrics, n_tokens = served.metrics, len(live.tokens)
    metrics.prompt_tokens.inc(len(live.prompt))
    metrics.reused_tokens.inc(live.n_reused)
    metrics.completion_tokens.inc(n_tokens)
    metrics.first_token.observe(first - answering.started)
    metrics.seconds.observe(now - answering.started)
    if n_tokens > 1:
        metrics.per_token.observe((now - first) / (n_tokens - 1))
