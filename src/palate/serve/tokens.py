"""Tokens of the answers to one request, as they come; the best candidate where there are several.

With one candidate, tokens are passed on. With several, nothing of an answer can be shown before
all of its candidates have ended; then the best one is passed on whole.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from palate.core.protocols import Token
from palate.engine.request import RunningRequest
from palate.library.candidates import Best, Candidates, best_candidates
from palate.serve.answers import Answering
from palate.serve.errors import late
from palate.serve.metrics import TenantMetrics
from palate.serve.state import Served
from palate.serve.worker import Job

Result = TypeVar("Result")
Sampled = tuple[int, RunningRequest, int, Token]  # answer's index, answer, token's place, token


async def tokens(served: Served, answering: Answering) -> AsyncGenerator[Sampled | None]:
    """Every token of every answer that is given; at the end, all candidates are aborted.

    With several candidates, the first that comes is `None`: the engine has begun, and there is
    nothing to show yet.

    Raises:
        ApiError: the deadline passed, or the engine failed.
        InvalidInputError: the engine refused the request.
    """
    n = answering.decision.n_candidates
    candidates: list[list[Token]] = [[] for _ in answering.jobs]
    try:
        async with aclosing(_of_candidates(served, answering)) as sampled:
            async for index, running, token in sampled:
                if n > 1 and not any(candidates):
                    yield None
                candidates[index].append(token)
                if n == 1:
                    yield index, running, len(candidates[index]) - 1, token
                    continue
                answer = index // n
                own = candidates[answer * n : answer * n + n]
                if all(one and one[-1].finish for one in own):
                    best = answering.best[answer] = await _best(served, answering, answer)
                    given = answering.candidates[answer * n + best.index]
                    for place, each in enumerate(own[best.index]):
                        yield answer, given, place, each
    finally:
        for job in answering.jobs:
            served.worker.cancel(job)


async def _of_candidates(
    served: Served, answering: Answering
) -> AsyncGenerator[tuple[int, RunningRequest, Token]]:
    """Every token of every candidate as it comes, with the candidate's index."""
    loop = asyncio.get_running_loop()
    index_of = {job: index for index, job in enumerate(answering.jobs)}
    queue, n_left = answering.jobs[0].events, len(answering.jobs)
    first: dict[Job, float] = {}
    while n_left:
        is_there = not queue.empty()
        job, event = queue.get_nowait() if is_there else await _in_time(queue.get(), answering)
        if isinstance(event, Exception):
            raise event
        running, token = event
        first.setdefault(job, loop.time())
        if token.finish is not None:
            n_left -= 1
            for metrics in served.metrics_of(answering.tenant):
                _count(metrics, running, answering.started, first[job], loop.time())
        yield index_of[job], running, token


async def _best(served: Served, answering: Answering, answer: int) -> Best:
    """The best candidate; the engine's own thread ranks where experts do."""
    library, decision = served.library, answering.decision
    n = decision.n_candidates
    candidates = answering.candidates[answer * n : answer * n + n]

    def rank() -> Best:
        texts = [running.text.text for running in candidates]
        tokens = [tuple(running.tokens) for running in candidates]
        return best_candidates(library, [Candidates(decision, texts, tokens)])[0]

    ranking = run_in_threadpool(rank) if decision.ranking else served.worker.call(rank)
    return await _in_time(ranking, answering)


async def _in_time(work: Awaitable[Result], answering: Answering) -> Result:
    seconds = answering.deadline - asyncio.get_running_loop().time()
    try:
        return await asyncio.wait_for(work, max(seconds, 0.0))
    except TimeoutError as error:
        raise late() from error


def _count(
    metrics: TenantMetrics, running: RunningRequest, started: float, first: float, now: float
) -> None:
    """Let the metrics know of a candidate that ended."""
    n_tokens = len(running.tokens)
    metrics.prompt_tokens.inc(len(running.prompt))
    metrics.cached_tokens.inc(running.n_cached_tokens)
    metrics.completion_tokens.inc(n_tokens)
    metrics.first_token.observe(first - started)
    metrics.seconds.observe(now - started)
    if n_tokens > 1:
        metrics.per_token.observe((now - first) / (n_tokens - 1))
