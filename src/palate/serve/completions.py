"""`POST /v1/completions`: the older form, one text instead of a conversation."""

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from palate.serve.answers import Answering, Ask, accounted, begin, finish, headers_of, tokens
from palate.serve.chat import chunk_of, last_chunk_of, with_stories
from palate.serve.gone import unless_gone
from palate.serve.logprobs import completion_logprobs, shown_places
from palate.serve.sampling import sampling_of
from palate.serve.state import Known, Parts, Served
from palate.serve.stream import event_stream
from palate.serve.wire.chat import Chunk, CompletionChoice, CompletionIn, CompletionOut

router = APIRouter(tags=["answers"])


@router.post("/v1/completions", response_model=CompletionOut)
async def create(
    asked: CompletionIn, request: Request, response: Response, served: Parts, caller: Known
) -> CompletionOut | StreamingResponse:
    """Continue a text; with `stream`, as server-sent events."""
    ask = Ask(
        messages=asked.text,
        model=asked.model,
        palate=asked.palate,
        sampling=sampling_of(asked, served.settings),
        n=asked.n or 1,
        seed=asked.seed,
        n_top=asked.logprobs or 0,
        prefix="cmpl",
    )
    if asked.stream:
        answering = await begin(served, caller, ask)
        return await event_stream(_chunks(served, answering, asked), headers=headers_of(answering))
    return await unless_gone(request, _whole(served, caller, ask, asked, response))


async def _whole(
    served: Served, caller: Known, ask: Ask, asked: CompletionIn, response: Response
) -> CompletionOut:
    answering = await begin(served, caller, ask)
    response.headers.update(headers_of(answering))
    ends: dict[int, str] = {}
    async for drawn in tokens(served, answering):
        if drawn.token.finish is not None:
            ends[drawn.index] = drawn.token.finish
    explained = await finish(served, answering)
    base, choices = served.engine.base, list[CompletionChoice]()
    for index, live in enumerate(answering.lives):
        said = None
        if asked.logprobs is not None:
            said, _ = completion_logprobs(base, live, places=shown_places(base, live), offset=0)
        choices.append(
            CompletionChoice(
                index=index,
                text=live.text.text,
                logprobs=said,
                finish_reason="stop" if ends[index] == "stop" else "length",
                palate=explained[index],
            )
        )
    return CompletionOut(
        id=answering.id,
        created=answering.created,
        model=asked.model,
        choices=choices,
        usage=answering.usage(),
        system_fingerprint=served.offer.fingerprint,
        palate=accounted(served, answering),
    )


async def _chunks(
    served: Served, answering: Answering, asked: CompletionIn
) -> AsyncGenerator[Chunk]:
    base, is_first = served.engine.base, True
    offsets = [0] * answering.ask.n
    last: list[dict[str, Any]] = []
    async for drawn in tokens(served, answering):
        index, token = drawn.index, drawn.token
        choice = _choice(index, token.text)
        if asked.logprobs is not None and token.token not in base.stop_ids:
            places = range(drawn.place, drawn.place + 1)
            said, offsets[index] = completion_logprobs(
                base, drawn.live, places=places, offset=offsets[index]
            )
            choice["logprobs"] = said.model_dump()
        if is_first or token.text or choice["logprobs"] is not None:
            chunk = chunk_of(served, answering, asked, [choice])
            yield (
                {**chunk, "palate": accounted(served, answering).model_dump()}
                if is_first
                else chunk
            )
            is_first = False
        if token.finish is not None:
            last.append(_choice(index, "", finish=token.finish))
    for choice in with_stories(last, await finish(served, answering)):
        yield last_chunk_of(served, answering, asked, choice)
    if asked.has_usage:
        closing = chunk_of(served, answering, asked, [])
        closing["usage"] = answering.usage().model_dump()
        yield closing


def _choice(index: int, text: str, *, finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
