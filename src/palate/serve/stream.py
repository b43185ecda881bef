"""Server-sent events: chunks as they come, an error in place of the rest, `[DONE]` at the end."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from pydantic_core import to_json
from starlette.responses import StreamingResponse

from palate.core.errors import PalateError
from palate.serve.errors import ApiError, body, from_palate
from palate.serve.logs import LOGGER

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def event_stream(
    chunks: AsyncGenerator[Mapping[str, Any]], *, headers: Mapping[str, str]
) -> StreamingResponse:
    """The response; what goes wrong before the first chunk is an error of its own.

    Raises:
        ApiError: as the chunks.
        PalateError: as the chunks.
    """
    first = await anext(chunks)
    return StreamingResponse(
        _events(first, chunks), media_type="text/event-stream", headers={**HEADERS, **headers}
    )


async def _events(
    first: Mapping[str, Any], chunks: AsyncGenerator[Mapping[str, Any]]
) -> AsyncIterator[bytes]:
    try:
        async with aclosing(chunks):
            yield _event(first)
            async for chunk in chunks:
                yield _event(chunk)
    except ApiError as error:
        yield _event(body(error))
        return
    except PalateError as error:
        yield _event(body(from_palate(error)))
        return
    except Exception:  # noqa: BLE001  the client must hear of it
        LOGGER.exception("a stream failed")
        yield _event(body(ApiError(500, "The server failed; try again.", code="failed")))
        return
    yield b"data: [DONE]\n\n"


def _event(chunk: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % to_json(chunk)
