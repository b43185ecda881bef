"""What one connection may cost before anything is known of who called: uvicorn's protocol, bounded.

Headers have their seconds and bytes, a body its bytes, a client that reads nothing its seconds.
Who goes beyond them is read no further, and ended only after a while, since who is ended at once
comes again at once. Where too many connections are open, the one that has sent no whole request
for longest is ended.
"""

import asyncio
import math
from time import monotonic  # a loop's own clock may stand still within a turn
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from palate.serve.settings import ServeSettings

MAX_HEADER_BYTES = 65_536
MAX_HEADERS = 128  # of a request; each costs a call, and a read may hold thousands
MAX_CHUNKS = 2048  # of a body
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
LEAST_READ_BYTES = 4096  # in `stall_seconds`, while so much waits
CHUNK_OVERHEAD = 2  # bytes on the wire for a byte of the body, at most


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, settings: ServeSettings, **parts: object) -> None:
        """Take what uvicorn gives a protocol, and the bounds."""
        super().__init__(**parts)  # type: ignore[arg-type]
        self.settings = settings
        self.since = monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._n_bytes, self._n_parts, self._is_in_headers = 0, 0, True
        self._is_held = False

    @property
    def is_waiting(self) -> bool:
        """Whether no whole request is being answered."""
        return self._is_idle or self.cycle.more_body

    @property
    def _is_idle(self) -> bool:
        cycle: Any = self.cycle  # none before the first request
        return cycle is None or cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; end another connection where there are too many."""
        super().connection_made(transport)
        self._abort_after(self.settings.header_seconds)
        host = self.client and self.client[0]
        others = [one for one in self.connections if isinstance(one, BoundedProtocol)]
        near = [one for one in others if one.client and one.client[0] == host]
        for group, most in (
            (near, self.settings.max_connections_per_address),
            (others, self.settings.max_connections),
        ):
            if len(group) > most:
                waiting = [one for one in group if one.is_waiting]
                min(waiting, key=lambda one: one.since).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read on, up to the bytes that are allowed."""
        if self._is_held:
            self.transport.pause_reading()  # again, since a request that waits for its body reads
            return
        if self._timer is None and self._is_idle:
            self._abort_after(self.settings.header_seconds)
        super().data_received(data)
        self._n_bytes += len(data)
        body = 0 if self._is_in_headers else CHUNK_OVERHEAD * self.settings.max_body_bytes
        if self._n_bytes > MAX_HEADER_BYTES + body:
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Read no more of what is no request, or goes beyond the bounds; end it after a while."""
        del msg
        if self._is_idle and not self._is_held:
            self.transport.write(REFUSAL)
        self._is_held = True
        self.transport.pause_reading()
        self.loop.call_later(self.settings.header_seconds, self.transport.abort)

    def on_message_begin(self) -> None:
        """Count anew."""
        super().on_message_begin()
        self._n_bytes, self._n_parts, self._is_in_headers = 0, 0, True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; after the body nobody needs one."""
        self._count(MAX_HEADERS if self._is_in_headers else 0)
        super().on_header(name, value)

    def on_chunk_header(self) -> None:
        """Count the chunk."""
        self._count(MAX_CHUNKS)

    def _count(self, most: int) -> None:
        self._n_parts += 1
        if self._n_parts > most:
            raise ConnectionAbortedError  # stops the parser in the middle of what was read

    def on_headers_complete(self) -> None:
        """The headers came in time; a request before the last one is answered ends all."""
        if not self._is_idle:
            raise ConnectionAbortedError
        self._n_parts, self._is_in_headers, self.since = 0, False, monotonic()
        self._end_timer()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is written to."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._end_timer()

    def on_response_complete(self) -> None:
        """What is written last is watched, too."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_reader()

    def timeout_keep_alive_handler(self) -> None:
        """No request came since the last answer, which may still be read."""
        super().timeout_keep_alive_handler()
        self._watch_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is left to bound."""
        self._end_timer()
        super().connection_lost(exc)

    def _watch_reader(self, n_unread: float = math.inf) -> None:
        """End the connection once its client reads less than a little in the seconds it has."""
        n_left = self.transport.get_write_buffer_size()
        if n_left > n_unread - LEAST_READ_BYTES:
            self.transport.abort()
        elif n_left:
            seconds = self.settings.stall_seconds
            self._end_timer()
            self._timer = self.loop.call_later(seconds, self._watch_reader, n_left)

    def _abort_after(self, seconds: float) -> None:
        self._end_timer()
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
