"""Log-probabilities in OpenAI's two forms."""

from palate.engine.batch import RunningRequest
from palate.engine.detokenize import token_text
from palate.models.load import Base
from palate.serve.wire.chat import CompletionLogprobs, TokenLogprob, TopLogprob

LEAST = -9999.0  # stands for minus infinity, which JSON cannot hold


def chat_logprob(base: Base, running: RunningRequest, *, place: int) -> TokenLogprob:
    """One token of a chat completion."""
    top = running.top[place] if running.n_top else []
    said = _top(base, running.tokens[place], running.log_probs[place], is_first=not place)
    return TokenLogprob(
        token=said.token,
        logprob=said.logprob,
        bytes=said.bytes,
        top_logprobs=[_top(base, other, value, is_first=not place) for other, value in top],
    )


def completion_logprobs(
    base: Base, running: RunningRequest, *, places: range, offset: int
) -> tuple[CompletionLogprobs, int]:
    """Some tokens of a completion, and where the text after them begins."""
    words: list[str] = []
    offsets: list[int] = []
    for place in places:
        words.append(token_text(base, running.tokens[place], is_first=not place))
        offsets.append(offset)
        offset += len(words[-1])
    top = None
    if running.n_top:
        top = [
            {
                token_text(base, other, is_first=not place): _finite(value)
                for other, value in running.top[place]
            }
            for place in places
        ]
    found = CompletionLogprobs(
        tokens=words,
        token_logprobs=[_finite(running.log_probs[place]) for place in places],
        top_logprobs=top,
        text_offset=offsets,
    )
    return found, offset


def shown_places(base: Base, running: RunningRequest) -> range:
    """Places of the tokens that are not the end token."""
    n_tokens = len(running.tokens)
    has_end = n_tokens > 0 and running.tokens[-1] in base.stop_ids
    return range(n_tokens - has_end)


def _top(base: Base, token: int, value: float, *, is_first: bool) -> TopLogprob:
    text = token_text(base, token, is_first=is_first)
    raw = None if "\ufffd" in text else list(text.encode())
    return TopLogprob(token=text, logprob=_finite(value), bytes=raw)


def _finite(value: float) -> float:
    return max(value, LEAST)
