"""An answer of several rows that the server itself mixes: one call a row, read in step.

Every row is a stream of its own, and all of them must give the same tokens; a row that gives
another one, the group's abort token or nothing any more has left its group, and so the answer ends
with an error. Nothing that a broken group wrote is handed on. A group that broke before its first
token is begun again a few times, since nothing was lost by that.
"""

import math
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from palate.core.errors import ProviderError
from palate.core.protocols import SamplingParams
from palate.engine.batch import RunningRequest
from palate.engine.vllm.groups import GUARD, GroupTag, Kind
from palate.engine.vllm.parts import VllmParts
from palate.engine.vllm.pieces import Piece
from palate.engine.vllm.wire import Pieces, RowAsked

PAUSE_SECONDS = 0.05  # before a group is begun again


@dataclass(frozen=True)
class GroupStep:
    """One token of a group.

    Attributes:
        token: That all rows took.
        said: Each row's own log-probability of it.
        lists: Each row's list of log-probabilities.
    """

    token: int
    said: tuple[float, ...]
    lists: tuple[dict[int, float], ...]


class _Split(Exception):  # noqa: N818 - never leaves this file
    """A row left its group."""


def group_steps(
    parts: VllmParts, running: RunningRequest, models: Sequence[str], *, n_listed: int
) -> Generator[GroupStep]:
    """The tokens of a plan with fixed coefficients, mixed inside the server.

    Args:
        parts: What it runs on.
        running: The request.
        models: The server's name of every row's model.
        n_listed: Log-probabilities to list for each row and token.

    Raises:
        ProviderError: the group was split, or the server failed.
        UnknownModel: the server has no model of a row.
    """
    settings = parts.client.settings
    for attempt in range(settings.n_retries + 1):
        found = _attempt(parts, running, models, n_listed=n_listed)
        try:
            yield from found
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
            found.close()


def _attempt(
    parts: VllmParts, running: RunningRequest, models: Sequence[str], *, n_listed: int
) -> Generator[GroupStep]:
    tag = _tag(parts, running)
    streams: list[Pieces] = []
    try:
        for row, (model, context) in enumerate(zip(models, running.contexts, strict=True)):
            asked = RowAsked(
                model,
                context,
                SamplingParams(temperature=0.0, max_tokens=running.request.sampling.max_tokens),
                seed=0,
                stop_ids=sorted({*parts.base.stop_ids, tag.abort}),
                n_top=n_listed,
                bias={tag.abort: GUARD},
                xargs=replace(tag, row=row).to_xargs(),
                scope=running.request.scope,
            )
            streams.append(parts.client.stream(asked))
        readers = [_singly(stream) for stream in streams]
        while True:
            yield _step(readers, abort=tag.abort)
    finally:
        for stream in streams:
            stream.close()


def _tag(parts: VllmParts, running: RunningRequest) -> GroupTag:
    pool, sampling = running.plan.pool, running.request.sampling
    kind: Kind = "log_linear" if pool.kind == "log_linear" else "linear"
    is_drawn = sampling.temperature > 0
    return GroupTag(
        group=uuid.uuid4().hex,
        row=0,
        shares=(1.0,) if pool.kind == "single" else pool.coefficients,
        kind=kind,
        abort=parts.abort_id,
        temperature=sampling.temperature,
        uniforms=tuple(running.uniforms.tolist()) if is_drawn else (),
    )


def _step(
    readers: Sequence[Iterator[tuple[int, float, dict[int, float]]]], *, abort: int
) -> GroupStep:
    """The next token of all rows, as soon as all of them gave it."""
    found: list[tuple[int, float, dict[int, float]]] = []
    for row, reader in enumerate(readers):
        given = next(reader, None)
        if given is None:
            raise _Split(f"row {row} ended without a reason")
        if given[0] == abort:
            raise _Split(f"row {row} was aborted")
        if found and given[0] != found[0][0]:
            raise _Split(f"row {row} took another token than row 0")
        found.append(given)
    return GroupStep(
        found[0][0], tuple(said for _, said, _ in found), tuple(top for _, _, top in found)
    )


def _singly(stream: Pieces) -> Iterator[tuple[int, float, dict[int, float]]]:
    piece: Piece
    for piece in stream:
        yield from zip(piece.tokens, piece.log_probs, piece.tops, strict=True)


def linear_log_prob(said: Sequence[float], shares: Sequence[float]) -> float:
    """`log sum_m share_m p_m` of one token from its log-probabilities under the rows."""
    joint = math.fsum(share * math.exp(value) for share, value in zip(shares, said, strict=True))
    return math.log(joint) if joint > 0 else -math.inf
