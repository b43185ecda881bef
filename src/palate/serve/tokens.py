"""Tokens of the answers of one request, as they come; the best candidate where there are several.

With one candidate, tokens are passed on. With several, nothing of an answer can be shown before
all of its candidates have ended; then the kept one is passed on whole.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from starlette.concurrency import run_in_threadpool

from palate.core.protocols import Token
from palate.engine.batch import RunningRequest
from palate.library.candidates import Best, best_candidate
from palate.serve.answers import Answering
from palate.serve.errors import ApiError
from palate.serve.state import Served
from palate.serve.worker import Event, Job


@dataclass(frozen=True, eq=False)
class Drawn:
    """One token of one answer.

    Attributes:
        index: Of the answer.
        place: Of the token in it.
        running: What the engine knows; it may be tokens ahead.
        token: The token.
    """

    index: int
    place: int
    running: RunningRequest
    token: Token


async def tokens(served: Served, answering: Answering) -> AsyncIterator[Drawn | None]:
    """Every token of every answer that is given; at the end, all candidates are let go of.

    With several candidates, the first that comes is `None`: the engine has begun, and there is
    nothing to show yet.

    Raises:
        ApiError: the deadline passed, or the engine failed.
        InvalidInputError: the engine refused the request.
    """
    drawn = _all(served, answering)
    given = drawn if answering.n_candidates == 1 else _kept(served, answering, drawn)
    try:
        async with aclosing(drawn), aclosing(given):
            async for one in given:
                yield one
    finally:
        for job in answering.jobs:
            served.worker.cancel(job)


async def _kept(
    served: Served, answering: Answering, drawn: AsyncGenerator[Drawn]
) -> AsyncGenerator[Drawn | None]:
    """`None` at once, and each answer's best candidate when all of its candidates have ended."""
    held: list[list[Drawn]] = [[] for _ in answering.jobs]
    async for one in drawn:
        if not any(held):
            yield None
        held[one.index].append(one)
        answer = one.index // answering.n_candidates
        if one.token.finish is not None and await _is_kept(served, answering, held, answer=answer):
            for kept in held[answering.kept[answer]]:
                yield replace(kept, index=answer)


async def _all(served: Served, answering: Answering) -> AsyncGenerator[Drawn]:
    """Every token of every candidate as it comes; `index` is the candidate's."""
    loop = asyncio.get_running_loop()
    place = {job: index for index, job in enumerate(answering.jobs)}
    queue, n_left = answering.jobs[0].events, len(answering.jobs)
    first: dict[int, float] = {}
    counts = [0] * n_left
    while n_left:
        job, event = await _next(queue, answering.deadline - loop.time())
        if isinstance(event, Exception):
            raise event
        index, (running, token) = place[job], event
        first.setdefault(index, loop.time())
        if token.finish is not None:
            n_left -= 1
            _count(served, answering, running, first[index], loop.time())
        counts[index] += 1
        yield Drawn(index, counts[index] - 1, running, token)


async def _is_kept(
    served: Served, answering: Answering, held: list[list[Drawn]], *, answer: int
) -> bool:
    """Whether all candidates of the answer have ended; then the best of them is kept.

    Raises:
        ApiError: they were not ranked before the deadline.
    """
    n = answering.n_candidates
    places = range(answer * n, answer * n + n)
    if not all(held[place] and held[place][-1].token.finish for place in places):
        return False
    running_requests = [held[place][0].running for place in places]
    best = await _best(served, answering, running_requests)
    answering.kept[answer] = places[best.index]
    answering.leads[answer] = best.lead
    return True


async def _best(
    served: Served, answering: Answering, running_requests: list[RunningRequest]
) -> Best:
    """The best candidate; the engine's own thread ranks where experts do."""
    library, decision = served.library, answering.decision
    texts = [running.text.text for running in running_requests]
    written = [tuple(running.tokens) for running in running_requests]

    def rank() -> Best:
        return best_candidate(library, decision, texts=texts, tokens=written)

    ranking = run_in_threadpool(rank) if decision.ranking else served.worker.call(rank)
    seconds = answering.deadline - asyncio.get_running_loop().time()
    try:
        return await asyncio.wait_for(ranking, max(seconds, 0.0))
    except TimeoutError as error:
        raise _late() from error


async def _next(queue: "asyncio.Queue[tuple[Job, Event]]", seconds: float) -> tuple[Job, Event]:
    if not queue.empty():
        return queue.get_nowait()
    try:
        return await asyncio.wait_for(queue.get(), max(seconds, 0.0))
    except TimeoutError as error:
        raise _late() from error


def _late() -> ApiError:
    message = "The answer was not ready before its deadline."
    return ApiError(504, message, code="deadline_exceeded")


def _count(
    served: Served, answering: Answering, running: RunningRequest, first: float, now: float
) -> None:
    """Let the metrics know of a candidate that ended."""
    metrics, n_tokens = served.metrics, len(running.tokens)
    metrics.prompt_tokens.inc(len(running.prompt))
    metrics.cached_tokens.inc(running.n_cached_tokens)
    metrics.completion_tokens.inc(n_tokens)
    metrics.first_token.observe(first - answering.started)
    metrics.seconds.observe(now - answering.started)
    if n_tokens > 1:
        metrics.per_token.observe((now - first) / (n_tokens - 1))
