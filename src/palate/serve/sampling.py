"""From a request's settings to the engine's."""

from palate.core.protocols import SamplingParams
from palate.serve.errors import ApiError
from palate.serve.settings import ServeSettings
from palate.serve.wire.chat import ChatIn, CompletionIn


def sampling_of(
    asked: ChatIn | CompletionIn, settings: ServeSettings, *, limit: int | None = None
) -> SamplingParams:
    """How tokens are drawn.

    Args:
        asked: The request.
        settings: Of the server.
        limit: `max_completion_tokens`, which goes before `max_tokens`.

    Raises:
        ApiError: more tokens are asked for than the server allows.
    """
    most = limit or asked.max_tokens
    require_tokens(most, settings)
    return SamplingParams(
        repetition_penalty=_or(asked.repetition_penalty, 1.0),
        temperature=_or(asked.temperature, 1.0),
        top_k=asked.top_k or 0,
        top_p=_or(asked.top_p, 1.0),
        max_tokens=most or min(settings.default_tokens, settings.max_tokens),
        stop=asked.stops,
    )


def require_tokens(most: int | None, settings: ServeSettings) -> None:
    """Refuse answers longer than the server allows.

    Raises:
        ApiError: they are.
    """
    if most is not None and most > settings.max_tokens:
        raise ApiError(
            400,
            f"{most} tokens are asked for, but an answer has at most {settings.max_tokens}.",
            code="invalid_value",
            param="max_tokens",
        )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
