"""`POST /v1/chat/completions` and the older `/v1/completions`: whole, or as server-sent events.

A stream sends chunks as they come, an error in place of the rest, and `[DONE]` at the end. When
the client disconnects, its answers are aborted.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from palate.core.errors import PalateError
from palate.engine.request import RunningRequest
from palate.serve.answers import Answering, begin, finish, headers_of, palate_out, usage_of
from palate.serve.errors import ApiError, body, disconnected, from_palate
from palate.serve.forms import ChatForm, Json, TextForm
from palate.serve.logs import LOGGER
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.tokens import Sampled, tokens
from palate.serve.wire.chat import ChatIn, ChatOut, CompletionIn, CompletionOut

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
OBJECTS = {  # of a whole response, and of a chunk
    "chatcmpl": ("chat.completion", "chat.completion.chunk"),
    "cmpl": ("text_completion", "text_completion"),
}
STREAM: dict[int | str, Json] = {200: {"content": {"text/event-stream": {}}}}
Result = TypeVar("Result")
Form = ChatForm | TextForm

router = APIRouter(tags=["answers"])


@router.post("/v1/chat/completions", name="create", response_model=ChatOut, responses=STREAM)
async def create_chat(
    body: ChatIn, request: Request, response: Response, served: Parts, caller: KnownCaller
) -> Any:
    """Answer a conversation; with `stream`, as server-sent events."""
    form = ChatForm(body, served.library.base)
    return await respond(served, caller.tenant, form, request, response)


@router.post("/v1/completions", name="create", response_model=CompletionOut, responses=STREAM)
async def create_text(
    body: CompletionIn, request: Request, response: Response, served: Parts, caller: KnownCaller
) -> Any:
    """Continue a text; with `stream`, as server-sent events."""
    form = TextForm(body, served.library.base)
    return await respond(served, caller.tenant, form, request, response)


async def respond(
    served: Served, tenant: str, form: Form, request: Request, response: Response
) -> Any:
    """The response; what goes wrong before a stream's first chunk is an error of its own.

    Raises:
        ApiError: the request is refused, or the client disconnected.
        PalateError: the same in the library's words.
    """
    if not form.request.stream:
        return await unless_disconnected(request, _whole(served, tenant, form, response))
    answering = await begin(served, tenant, form.request, prefix=form.prefix)
    chunks = _chunks(served, answering, form)
    return StreamingResponse(
        _events(await anext(chunks), chunks),
        media_type="text/event-stream",
        headers={**HEADERS, **headers_of(answering)},
    )


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of the work; cancelled, with ApiError, when the client disconnects."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise disconnected()
        return task.result()
    finally:
        for part in (task, watch):
            part.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _whole(served: Served, tenant: str, form: Form, response: Response) -> Json:
    answering = await begin(served, tenant, form.request, prefix=form.prefix)
    response.headers.update(headers_of(answering))
    ends: dict[int, str] = {}
    async for sampled in tokens(served, answering):
        if sampled is not None and sampled[3].finish is not None:
            ends[sampled[0]] = sampled[3].finish
    stories = await finish(served, answering, is_explained=form.request.palate.explain)
    choices: list[Json] = []
    for index, running in enumerate(answering.answers):
        text = form.text(running.text.text, index=index, is_whole=True)
        log_probs = form.log_probs(index, running, _shown(served, running))
        end = "stop" if ends[index] == "stop" else "length"
        choices.append({**_choice(index, text, log_probs, finish=end), "palate": stories[index]})
    return {
        **_head(served, answering, form, is_chunk=False),
        "choices": choices,
        "usage": usage_of(answering),
        "palate": palate_out(served, answering),
    }


async def _chunks(served: Served, answering: Answering, form: Form) -> AsyncGenerator[Json]:
    usage = {"usage": None} if form.request.has_usage else {}
    head = {**_head(served, answering, form, is_chunk=True), **usage}
    is_first = True
    last: list[Json] = []
    async for sampled in tokens(served, answering):
        if is_first:
            is_first = False
            out = {"palate": palate_out(served, answering, is_waiting=True)}
            for index, opening in enumerate(form.openings):
                yield {**head, "choices": [_choice(index, opening)], **({} if index else out)}
        if sampled is None:
            continue
        index, _, _, token = sampled
        choice = _piece(served, form, sampled)
        if token.text or choice["logprobs"] is not None:
            yield {**head, "choices": [choice]}
        if token.finish is not None:
            last.append(_choice(index, form.text(None, index=index), finish=token.finish))
    for closing in await _closings(served, answering, form, last):
        yield {**head, **closing}


def _piece(served: Served, form: Form, sampled: Sampled) -> Json:
    """The choice that adds one token; the end token adds no log-probability."""
    index, running, place, token = sampled
    log_probs = None
    if token.token not in served.library.base.stop_ids:
        log_probs = form.log_probs(index, running, range(place, place + 1))
    return _choice(index, form.text(token.text, index=index), log_probs)


async def _closings(
    served: Served, answering: Answering, form: Form, last: list[Json]
) -> list[Json]:
    """The events that end a stream: each choice's last, and the usage where it is wanted."""
    stories = await finish(served, answering, is_explained=form.request.palate.explain)
    closings: list[Json] = []
    for choice in last:
        story, out = stories[choice["index"]], palate_out(served, answering)
        is_news = out["engine"] is not None or out["n_candidates"] > 1  # since the first chunk
        choices = [choice if story is None else {**choice, "palate": story}]
        closings.append({"choices": choices, **({"palate": out} if is_news else {})})
    if form.request.has_usage:
        closings.append({"choices": [], "usage": usage_of(answering)})
    return closings


def _choice(
    index: int, text: Json, log_probs: Json | None = None, *, finish: str | None = None
) -> Json:
    if finish == "stop" and any("tool_calls" in p for p in text.values() if isinstance(p, dict)):
        finish = "tool_calls"
    return {"index": index, **text, "logprobs": log_probs, "finish_reason": finish}


def _head(served: Served, answering: Answering, form: Form, *, is_chunk: bool) -> Json:
    return {
        "id": answering.id,
        "object": OBJECTS[form.prefix][is_chunk],
        "created": answering.created,
        "model": form.request.model,
        "system_fingerprint": served.fingerprint,
    }


def _shown(served: Served, running: RunningRequest) -> range:
    """Places of the tokens that are not the end token."""
    n_tokens = len(running.tokens)
    has_end = n_tokens > 0 and running.tokens[-1] in served.library.base.stop_ids
    return range(n_tokens - has_end)


async def _events(first: Json, chunks: AsyncGenerator[Json]) -> AsyncIterator[bytes]:
    try:
        async with aclosing(chunks):
            yield _event(first)
            async for chunk in chunks:
                yield _event(chunk)
    except (ApiError, PalateError) as error:
        yield _event(body(error if isinstance(error, ApiError) else from_palate(error)))
    except Exception:  # noqa: BLE001  the client must hear of it
        LOGGER.exception("a stream failed")
        yield _event(body(ApiError(500, "The server failed; try again.", code="failed")))
    else:
        yield b"data: [DONE]\n\n"


def _event(chunk: Json) -> bytes:
    return b"data: %b\n\n" % to_json(chunk)
