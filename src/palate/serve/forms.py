"""How the two endpoints for answers write parts of a choice: of a chat's messages, or of a text."""

from dataclasses import dataclass, field
from typing import Any

from palate.engine.detokenize import token_text
from palate.engine.request import RunningRequest
from palate.models.load import Base
from palate.serve.called import calls_in, n_plain
from palate.serve.wire.chat import LEAST_LOG_PROB, ChatIn, CompletionIn, TokenLogprob, TopLogprob

Json = dict[str, Any]


@dataclass(frozen=True)
class ChatForm:
    """How `/v1/chat/completions` writes the parts of its choices."""

    request: ChatIn  # the body
    base: Base
    prefix: str = "chatcmpl"  # of the response's identifier: a key of `OBJECTS`
    held: dict[int, str] = field(default_factory=dict[int, str])  # texts so far, if there are tools

    @property
    def openings(self) -> list[Json]:
        """What the first chunks hold, one for each choice from the first on."""
        message = {"role": "assistant", "content": "", "refusal": None}
        return [{"delta": message}] * (self.request.n or 1)

    def text(self, text: str | None, *, index: int, is_whole: bool = False) -> Json:
        """All of an answer's text, or the next piece; `None` is the end."""
        tools = self.request.offered_tools
        most = 1 if self.request.parallel_tool_calls is False else None
        if is_whole:
            content, calls = calls_in(text or "", tools) if tools else (text, [])
            message = {"role": "assistant", "content": content or (None if calls else "")}
            more = {"tool_calls": calls[:most]} if calls else {}
            return {"message": {**message, "refusal": None, **more}}
        if not tools:
            return {"delta": {} if text is None else {"content": text}}
        before = self.held.get(index, "")
        held = self.held[index] = before + (text or "")
        if text is not None:
            return {"delta": {"content": held[n_plain(before) : n_plain(held)]}}
        content, calls = calls_in(held, tools)
        rest = "" if calls and n_plain(held) else content[n_plain(held) :]
        numbered = [{"index": place, **call} for place, call in enumerate(calls[:most])]
        parts = {"content": rest, "tool_calls": numbered}
        return {"delta": {key: value for key, value in parts.items() if value}}

    def log_probs(self, index: int, running: RunningRequest, places: range) -> Json | None:
        """Log-probabilities of these tokens of an answer, if they are wanted."""
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


@dataclass(frozen=True)
class TextForm:
    """How `/v1/completions` writes the parts of its choices; members are those of `ChatForm`."""

    request: CompletionIn
    base: Base
    prefix: str = "cmpl"
    ends: dict[int, int] = field(default_factory=dict[int, int])  # of the texts of tokens so far

    @property
    def openings(self) -> list[Json]:
        """What the first chunk holds."""
        return [{"text": ""}]

    def text(self, text: str | None, *, index: int, is_whole: bool = False) -> Json:
        """All of the text, or the next piece."""
        del index, is_whole
        return {"text": text or ""}

    def log_probs(self, index: int, running: RunningRequest, places: range) -> Json | None:
        """Log-probabilities of these tokens of an answer, if they are wanted."""
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
