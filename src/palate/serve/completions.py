"""`POST /v1/completions`: the older form, one text instead of a conversation."""

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from palate.serve.answers import Answering, Ask, accounted, begin, finish, headers_of, waiting
from palate.serve.chat import chunk_of, closing_chunks
from palate.serve.disconnect import unless_gone
from palate.serve.logprobs import completion_logprobs, shown_places
from palate.serve.sampling import sampling_of
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.stream import event_stream
from palate.serve.tokens import Drawn, tokens
from palate.serve.wire.chat import Chunk, CompletionChoice, CompletionIn, CompletionOut

router = APIRouter(tags=["answers"])


@router.post("/v1/completions", response_model=CompletionOut)
async def create(
    asked: CompletionIn, request: Request, response: Response, served: Parts, caller: KnownCaller
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
    served: Served, caller: KnownCaller, ask: Ask, asked: CompletionIn, response: Response
) -> CompletionOut:
    answering = await begin(served, caller, ask)
    response.headers.update(headers_of(answering))
    ends: dict[int, str] = {}
    async for drawn in tokens(served, answering):
        if drawn is not None and drawn.token.finish is not None:
            ends[drawn.index] = drawn.token.finish
    explained = await finish(served, answering)
    base, choices = served.engine.base, list[CompletionChoice]()
    for index, running in enumerate(answering.answers):
        said = None
        if asked.logprobs is not None:
            said, _ = completion_logprobs(
                base, running, places=shown_places(base, running), offset=0
            )
        choices.append(
            CompletionChoice(
                index=index,
                text=running.text.text,
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
        system_fingerprint=served.fingerprint,
        palate=accounted(served, answering),
    )


async def _chunks(
    served: Served, answering: Answering, asked: CompletionIn
) -> AsyncGenerator[Chunk]:
    base, is_first = served.engine.base, True
    offsets = [0] * answering.ask.n
    last: list[dict[str, Any]] = []
    async for drawn in tokens(served, answering):
        if is_first:
            is_first = False
            opening = chunk_of(served, answering, asked, [_choice(0, "")])
            yield {**opening, "palate": waiting(served, answering).model_dump()}
        if drawn is None:
            continue
        index, token = drawn.index, drawn.token
        choice = _choice(index, token.text)
        if asked.logprobs is not None and token.token not in base.stop_ids:
            choice["logprobs"], offsets[index] = _drawn_logprobs(
                served, drawn, offset=offsets[index]
            )
        if token.text or choice["logprobs"] is not None:
            yield chunk_of(served, answering, asked, [choice])
        if token.finish is not None:
            last.append(_choice(index, "", finish=token.finish))
    for closing in await closing_chunks(served, answering, asked, last):
        yield closing


def _drawn_logprobs(served: Served, drawn: Drawn, *, offset: int) -> tuple[dict[str, Any], int]:
    places = range(drawn.place, drawn.place + 1)
    found, after = completion_logprobs(
        served.engine.base, drawn.running, places=places, offset=offset
    )
    return found.model_dump(), after


def _choice(index: int, text: str, *, finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
