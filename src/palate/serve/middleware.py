"""Every request gets an identifier, limits of size and number, safe headers and one log line.

Plain ASGI, so that streams and cancellations go through untouched.
"""

import re
import time
import uuid
from typing import Any

from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.serve.errors import ApiError, render
from palate.serve.logs import LOGGER
from palate.serve.state import Served

REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class Middleware:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, served: Served) -> None:
        """Wrap the application."""
        self.app = app
        self.served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not REQUEST_ID.match(request_id):
            request_id = uuid.uuid4().hex
        started, status = time.perf_counter(), [499]  # until a response starts

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                if self.served.settings.is_traced:  # addresses and queries name users
                    hidden = {"url.path": _template(scope), "url.query": ""}
                    trace.get_current_span().set_attributes(hidden)
                _mark(MutableHeaders(scope=message), scope["path"], request_id)
            await send(message)

        self.served.n_open += 1
        try:
            await self._pass(scope, headers, receive, send_marked)
        finally:
            self.served.n_open -= 1
            self._note(scope, request_id, status[0], time.perf_counter() - started)

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope, headers)
        if refusal is None:
            bounded = _Bounded(receive, self.served.settings.max_body_bytes)
            try:
                await self.app(scope, bounded, send)
            except ApiError as error:  # only the bounded body raises out here
                refusal = error
        if refusal is not None:
            await render(refusal)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> ApiError | None:
        settings, length = self.served.settings, headers.get("content-length", "")
        is_probe = scope["path"] in ("/health", "/ready", "/metrics")
        if self.served.n_open > settings.max_open and not is_probe:
            self.served.metrics.refused.labels("open").inc()
            return ApiError(429, "Too many requests are open.", "too_many_open", retry_seconds=1)
        if length.isdigit() and int(length) > settings.max_body_bytes:
            return too_large(settings.max_body_bytes)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        has_body = length not in ("", "0") or "transfer-encoding" in headers
        if scope["method"] in WITH_BODY and has_body and kind != "application/json":
            return ApiError(
                415, "The body must be JSON; send Content-Type: application/json.", "not_json"
            )
        return None

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        template = _template(scope)
        self.served.metrics.requests.labels(template, str(status)).inc()
        LOGGER.info(
            "request",
            extra={
                "request_id": request_id,
                "method": scope["method"],
                "route": template,
                "status": status,
                "seconds": round(seconds, 4),
            },
        )


class _Bounded:
    """Receives a body up to a limit."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.receive = receive
        self.limit = limit
        self.left = limit

    async def __call__(self) -> Message:
        message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise too_large(self.limit)
        return message


def too_large(limit: int) -> ApiError:
    """The refusal of a body that is too large."""
    return ApiError(413, f"The body is larger than {limit} bytes; send less.", code="too_large")


def _template(scope: Scope) -> str:
    route: Any = scope.get("route")
    return getattr(route, "path", None) or "other"


def _mark(headers: MutableHeaders, path: str, request_id: str) -> None:
    headers["X-Request-Id"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    is_api = path.startswith("/v1/") or path in ("/health", "/ready", "/metrics", "/openapi.json")
    headers["Content-Security-Policy"] = API_POLICY if is_api else PAGE_POLICY
    headers.setdefault("Cache-Control", "no-store" if is_api else "no-cache")
