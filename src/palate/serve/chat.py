"""`POST /v1/chat/completions`."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from palate.core.protocols import SamplingParams
from palate.serve.answers import Answering, Ask, accounted, begin, finish, headers_of, waiting
from palate.serve.disconnect import unless_gone
from palate.serve.logprobs import chat_logprob, shown_places
from palate.serve.sampling import sampling_of
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.stream import event_stream
from palate.serve.tokens import Drawn, tokens
from palate.serve.wire.chat import (
    AnswerMessage,
    ChatChoice,
    ChatIn,
    ChatLogprobs,
    ChatOut,
    Chunk,
    CompletionIn,
    Message,
)
from palate.serve.wire.palate import Explained

router = APIRouter(tags=["answers"])


@router.post("/v1/chat/completions", response_model=ChatOut)
async def create(
    asked: ChatIn, request: Request, response: Response, served: Parts, caller: KnownCaller
) -> ChatOut | StreamingResponse:
    """Answer a conversation; with `stream`, as server-sent events."""
    sampling = sampling_of(asked, served.settings, limit=asked.max_completion_tokens)
    ask = _ask(asked, sampling)
    if asked.stream:
        answering = await begin(served, caller, ask)
        return await event_stream(_chunks(served, answering, asked), headers=headers_of(answering))
    return await unless_gone(request, _whole(served, caller, ask, asked, response))


def plain(messages: list[Message]) -> list[dict[str, str]]:
    """Messages as the model's template takes them; `developer` is `system`."""
    roles = {"developer": "system"}
    return [{"role": roles.get(m.role, m.role), "content": m.text} for m in messages]


def _ask(asked: ChatIn, sampling: SamplingParams) -> Ask:
    return Ask(
        messages=plain(asked.messages),
        model=asked.model,
        palate=asked.palate,
        sampling=sampling,
        n=asked.n or 1,
        seed=asked.seed,
        n_top=asked.top_logprobs or 0,
    )


async def _whole(
    served: Served, caller: KnownCaller, ask: Ask, asked: ChatIn, response: Response
) -> ChatOut:
    answering = await begin(served, caller, ask)
    response.headers.update(headers_of(answering))
    ends: dict[int, str] = {}
    async for drawn in tokens(served, answering):
        if drawn is not None and drawn.token.finish is not None:
            ends[drawn.index] = drawn.token.finish
    explained = await finish(served, answering)
    choices = [
        ChatChoice(
            index=index,
            message=AnswerMessage(content=running.text.text),
            logprobs=_logprobs(served, answering, index) if asked.logprobs else None,
            finish_reason="stop" if ends[index] == "stop" else "length",
            palate=explained[index],
        )
        for index, running in enumerate(answering.answers)
    ]
    return ChatOut(
        id=answering.id,
        created=answering.created,
        model=asked.model,
        choices=choices,
        usage=answering.usage(),
        system_fingerprint=served.fingerprint,
        palate=accounted(served, answering),
    )


async def _chunks(served: Served, answering: Answering, asked: ChatIn) -> AsyncGenerator[Chunk]:
    is_first = True
    last: list[dict[str, Any]] = []
    async for drawn in tokens(served, answering):
        if is_first:
            is_first = False
            for opening in _openings(served, answering, asked):
                yield opening
        if drawn is None:
            continue
        choice = _drawn_choice(served, drawn, has_logprobs=bool(asked.logprobs))
        if drawn.token.text or choice["logprobs"] is not None:
            yield chunk_of(served, answering, asked, [choice])
        if drawn.token.finish is not None:
            last.append(_choice(drawn.index, {}, finish=drawn.token.finish))
    for closing in await closing_chunks(served, answering, asked, last):
        yield closing


async def closing_chunks(
    served: Served,
    answering: Answering,
    asked: ChatIn | CompletionIn,
    choices: Sequence[dict[str, Any]],
) -> list[Chunk]:
    """The events that end a stream: each choice's last, and the usage where it is wanted."""
    ends = _with_stories(choices, await finish(served, answering))
    chunks = [_last_chunk(served, answering, asked, choice) for choice in ends]
    if asked.has_usage:
        usage = chunk_of(served, answering, asked, [])
        chunks.append({**usage, "usage": answering.usage().model_dump()})
    return chunks


def _with_stories(
    choices: Sequence[dict[str, Any]], explained: Sequence[Explained | None]
) -> list[dict[str, Any]]:
    """Choices of last chunks, with who wrote their tokens where that was asked for."""
    stories = [explained[choice["index"]] for choice in choices]
    return [
        choice if story is None else {**choice, "palate": story.model_dump()}
        for choice, story in zip(choices, stories, strict=True)
    ]


def _openings(served: Served, answering: Answering, asked: ChatIn) -> list[Chunk]:
    """Who speaks, for every answer; the first says how the answers come about."""
    delta = {"role": "assistant", "content": "", "refusal": None}
    chunks = [
        chunk_of(served, answering, asked, [_choice(place, delta)])
        for place in range(answering.ask.n)
    ]
    chunks[0]["palate"] = waiting(served, answering).model_dump()
    return chunks


def _drawn_choice(served: Served, drawn: Drawn, *, has_logprobs: bool) -> dict[str, Any]:
    base, choice = served.engine.base, _choice(drawn.index, {"content": drawn.token.text})
    if has_logprobs and drawn.token.token not in base.stop_ids:
        said = chat_logprob(base, drawn.running, place=drawn.place)
        choice["logprobs"] = {"content": [said], "refusal": None}
    return choice


def _logprobs(served: Served, answering: Answering, index: int) -> ChatLogprobs:
    base, running = served.engine.base, answering.answers[index]
    return ChatLogprobs(
        content=[chat_logprob(base, running, place=place) for place in shown_places(base, running)]
    )


def _choice(index: int, delta: dict[str, Any], *, finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def chunk_of(
    served: Served,
    answering: Answering,
    asked: ChatIn | CompletionIn,
    choices: list[dict[str, Any]],
) -> Chunk:
    """One event of a stream of chats or completions, in OpenAI's form."""
    chunk: Chunk = {
        "id": answering.id,
        "object": "chat.completion.chunk" if isinstance(asked, ChatIn) else "text_completion",
        "created": answering.created,
        "model": asked.model,
        "system_fingerprint": served.fingerprint,
        "choices": choices,
    }
    if asked.has_usage:
        chunk["usage"] = None
    return chunk


def _last_chunk(
    served: Served, answering: Answering, asked: ChatIn | CompletionIn, choice: dict[str, Any]
) -> Chunk:
    """The event that ends a choice; it says what was not known at the first one, if anything."""
    chunk = chunk_of(served, answering, asked, [choice])
    out = accounted(served, answering)
    is_new = out.engine is not None or out.n_candidates > 1
    return {**chunk, "palate": out.model_dump()} if is_new else chunk
