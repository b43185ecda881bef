"""`POST /v1/chat/completions`: the next message of a conversation."""

from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from palate.engine.detokenize import token_text
from palate.engine.request import RunningRequest
from palate.models.load import Base
from palate.serve.called import calls_in, n_plain
from palate.serve.respond import STREAM, Json, respond
from palate.serve.state import KnownCaller, Parts
from palate.serve.wire.chat import LEAST_LOG_PROB, ChatIn, ChatOut, TokenLogprob, TopLogprob

router = APIRouter(tags=["answers"])


@router.post("/v1/chat/completions", response_model=ChatOut, responses=STREAM)
async def create(
    body: ChatIn, request: Request, response: Response, served: Parts, caller: KnownCaller
) -> Any:
    """Answer a conversation; with `stream`, as server-sent events."""
    form = _ChatForm(body, served.library.base)
    return await respond(served, caller.tenant, form, request, response)


@dataclass(frozen=True)
class _ChatForm:
    """See `palate.serve.respond.Form`; `held` are texts that may become calls of tools."""

    request: ChatIn
    base: Base
    prefix: str = "chatcmpl"
    held: dict[int, str] = field(default_factory=dict[int, str])

    @property
    def openings(self) -> list[Json]:
        message = {"role": "assistant", "content": "", "refusal": None}
        return [{"delta": message}] * (self.request.n or 1)

    def text(self, text: str | None, *, index: int, is_whole: bool = False) -> Json:
        tools = self.request.offered_tools
        if is_whole:
            content, calls = calls_in(text or "", tools) if tools else (text, [])
            message = {"role": "assistant", "content": content or (None if calls else "")}
            return {
                "message": {**message, "refusal": None, **({"tool_calls": calls} if calls else {})}
            }
        if not tools:
            return {"delta": {} if text is None else {"content": text}}
        held = self.held.pop(index, "") + (text or "")
        if text is not None:
            n = n_plain(held)
            self.held[index] = held[n:]
            return {"delta": {"content": held[:n]}}
        content, calls = calls_in(held, tools)
        numbered = [{"index": place, **call} for place, call in enumerate(calls)]
        parts = {"content": content, "tool_calls": numbered}
        return {"delta": {key: value for key, value in parts.items() if value}}

    def log_probs(self, index: int, running: RunningRequest, places: range) -> Json | None:
        del index
        if not self.request.logprobs:
            return None
        return {"content": [self._token(running, place) for place in places], "refusal": None}

    def _token(self, running: RunningRequest, place: int) -> TokenLogprob:
        """One token, and the most probable ones in its place."""
        token = self._top(running.tokens[place], running.log_probs[place])
        top = running.top[place] if running.n_top else []
        return {**token, "top_logprobs": [self._top(other, value) for other, value in top]}

    def _top(self, token: int, value: float) -> TopLogprob:
        text = token_text(self.base, token)
        raw = None if "\ufffd" in text else list(text.encode())
        return TopLogprob(token=text, logprob=max(value, LEAST_LOG_PROB), bytes=raw)
