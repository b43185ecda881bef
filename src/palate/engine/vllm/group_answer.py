"""An answer of several rows that the server itself pools: one call a row, in step.

Every row is a stream of its own, and all of them must give the same tokens. A row that gives
another one, the group's abort token or nothing any more has left its group, and so the answer ends
with an error. No token of a broken group is emitted. A group that broke before its first token is
begun again a few times, since nothing was lost by that.
"""

import math
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from palate.core.errors import ProviderError
from palate.core.protocols import SamplingParams
from palate.engine.openai.connection import ChoiceStream, chunk_of
from palate.engine.request import RunningRequest
from palate.engine.vllm.adapters import VllmContext
from palate.engine.vllm.client import RowRequest
from palate.engine.vllm.groups import GUARD, GroupTag, Kind

PAUSE_SECONDS = 0.05  # before a group is begun again

RowToken = tuple[int, float, dict[int, float]]  # token, its log-probability, the row's list


@dataclass(frozen=True)
class GroupStep:
    """One token of a group."""

    token: int  # of all rows
    log_probs: tuple[float, ...]  # each row's own log-probability of it
    lists: tuple[dict[int, float], ...]  # each row's list of log-probabilities


class _Split(Exception):  # noqa: N818 - never leaves this file
    """A row left its group."""


def group_steps(
    context: VllmContext, running: RunningRequest, models: Sequence[str], *, n_listed: int
) -> Generator[GroupStep]:
    """The tokens of a plan with fixed coefficients, pooled inside the server.

    `models` are the server's names of the rows' models; `n_listed` log-probabilities are listed for
    each row and token.

    Raises:
        ProviderError: the group was split, or the server failed.
        UnknownModelError: the server has no model of a row.
    """
    settings = context.settings
    for attempt in range(settings.n_retries + 1):
        steps = _attempt(context, running, models, n_listed=n_listed)
        try:
            yield from steps
        except _Split as split:
            if running.tokens or attempt == settings.n_retries:
                raise ProviderError(
                    f"The server {settings.url!r} split the {len(models)} rows of an answer after "
                    f"{len(running.tokens)} tokens ({split}; its log says why), so the answer was "
                    "ended rather than left unmixed; start it with --scheduler-cls "
                    "palate.engine.vllm.scheduler.GroupScheduler, more seats (--max-num-seqs), "
                    "adapter slots (--max-loras) or memory, or ask again.",
                    is_retryable=True,
                ) from split
            time.sleep(PAUSE_SECONDS * 2**attempt)
        finally:
            steps.close()


def _attempt(
    context: VllmContext, running: RunningRequest, models: Sequence[str], *, n_listed: int
) -> Generator[GroupStep]:
    tag = _tag(context, running)
    streams: list[ChoiceStream] = []
    sampling = SamplingParams(temperature=0.0, max_tokens=running.request.sampling.max_tokens)
    try:
        for row, (model, prompt) in enumerate(zip(models, running.contexts, strict=True)):
            request = RowRequest(
                model,
                prompt,
                sampling,
                seed=0,
                stop_ids=sorted({*context.base.stop_ids, tag.abort}),
                n_top=n_listed,
                bias={tag.abort: GUARD},
                xargs=replace(tag, row=row).to_xargs(),
                scope=running.request.scope,
            )
            streams.append(context.client.stream(request))
        rows = [_tokens(stream) for stream in streams]
        while True:
            yield _step(rows, abort=tag.abort)
    finally:
        for stream in streams:
            stream.close()


def _tag(context: VllmContext, running: RunningRequest) -> GroupTag:
    pool, sampling = running.plan.pool, running.request.sampling
    kind: Kind = "log_linear" if pool.kind == "log_linear" else "linear"
    return GroupTag(
        group=uuid.uuid4().hex,
        row=0,
        shares=(1.0,) if pool.kind == "single" else pool.coefficients,
        pool=kind,
        abort=context.abort_id,
        temperature=sampling.temperature,
        uniforms=tuple(running.uniforms.tolist()) if sampling.temperature > 0 else (),
    )


def _step(rows: Sequence[Iterator[RowToken]], *, abort: int) -> GroupStep:
    """The next token, as soon as all rows gave it."""
    given: list[RowToken] = []
    for row, tokens in enumerate(rows):
        following = next(tokens, None)
        if following is None:
            raise _Split(f"row {row} ended without a reason")
        if following[0] == abort:
            raise _Split(f"row {row} was aborted")
        if given and following[0] != given[0][0]:
            raise _Split(f"row {row} took another token than row 0")
        given.append(following)
    _, log_probs, lists = zip(*given, strict=True)
    return GroupStep(given[0][0], log_probs, lists)


def _tokens(stream: ChoiceStream) -> Iterator[RowToken]:
    for chunk in map(chunk_of, stream):
        yield from zip(chunk.tokens, chunk.log_probs, chunk.tops, strict=True)


def linear_log_prob(log_probs: Sequence[float], shares: Sequence[float]) -> float:
    """`log sum_m share_m p_m` of one token from its log-probabilities under the rows."""
    joint = math.fsum(s * math.exp(value) for s, value in zip(shares, log_probs, strict=True))
    return math.log(joint) if joint > 0 else -math.inf
