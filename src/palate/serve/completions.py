"""`POST /v1/completions`: the older form, one text instead of a conversation."""

from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from palate.engine.detokenize import token_text
from palate.engine.request import RunningRequest
from palate.models.load import Base
from palate.serve.respond import STREAM, Json, respond
from palate.serve.state import KnownCaller, Parts
from palate.serve.wire.chat import LEAST_LOG_PROB, CompletionIn, CompletionOut

router = APIRouter(tags=["answers"])


@router.post("/v1/completions", response_model=CompletionOut, responses=STREAM)
async def create(
    body: CompletionIn, request: Request, response: Response, served: Parts, caller: KnownCaller
) -> Any:
    """Continue a text; with `stream`, as server-sent events."""
    form = _TextForm(body, served.library.base)
    return await respond(served, caller.tenant, form, request, response)


@dataclass(frozen=True)
class _TextForm:
    """See `palate.serve.respond.Form`; `ends` are the ends of the texts of tokens so far."""

    request: CompletionIn
    base: Base
    prefix: str = "cmpl"
    ends: dict[int, int] = field(default_factory=dict[int, int])

    @property
    def openings(self) -> list[Json]:
        return [{"text": ""}]

    def text(self, text: str | None, *, index: int, is_whole: bool = False) -> Json:
        del index, is_whole
        return {"text": text or ""}

    def log_probs(self, index: int, running: RunningRequest, places: range) -> Json | None:
        if self.request.logprobs is None:
            return None
        texts: list[str] = []
        offsets: list[int] = []
        for place in places:
            texts.append(token_text(self.base, running.tokens[place]))
            offsets.append(self.ends.get(index, 0))
            self.ends[index] = offsets[-1] + len(texts[-1])
        top = [
            {token_text(self.base, token): max(value, LEAST_LOG_PROB) for token, value in one}
            for one in running.top[places.start : places.stop]
        ]
        return {
            "tokens": texts,
            "token_logprobs": [max(running.log_probs[k], LEAST_LOG_PROB) for k in places],
            "top_logprobs": top if running.n_top else None,
            "text_offset": offsets,
        }
