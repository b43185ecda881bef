"""Every request gets an identifier, limits of size, number and time, safe headers, one log line.

Who calls is known before a body is read: without a key nobody makes the server wait. Plain ASGI,
so that streams and cancellations go through untouched.
"""

import asyncio
import json
import re
import time
import uuid
from typing import Any
from urllib.parse import unquote

from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.core.errors import InvalidInputError
from palate.serve.auth import require_own_site
from palate.serve.errors import ApiError, disconnected, late, render
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
GRACE_SECONDS = 2.0  # after its deadline a stream can still say so


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
                marked = MutableHeaders(scope=message)
                marked.update(self.served.headers)
                _mark(marked, scope["path"], request_id)
            await send(message)

        try:
            refusal = await self._pass(scope, headers, receive, send_marked)
            if refusal is not None and status[0] == 499:
                await render(refusal)(scope, receive, send_marked)
        finally:
            self._note(scope, request_id, status[0], time.perf_counter() - started)

    async def _pass(
        self, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> ApiError | None:
        """Let the application answer; what is refused, or went wrong, comes back."""
        try:
            async with asyncio.timeout(self.served.settings.deadline_seconds + GRACE_SECONDS):
                self._require_form(scope, headers)
                path = scope["path"]
                if path.startswith("/v1/") or path == "/metrics":
                    await self._pass_known(scope, headers, receive, send)
                else:
                    await self.app(scope, receive, send)
        except ApiError as error:
            return error
        except TimeoutError:
            return late()
        except RecursionError:
            return ApiError(400, "The body is nested too deeply; send less.", "invalid_json")
        except Exception as error:  # noqa: BLE001  the client must hear of it
            LOGGER.error("a request failed", exc_info=error)
            return ApiError(500, "The server failed; try again.", code="failed")
        return None

    async def _pass_known(
        self, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> None:
        served, client = self.served, scope.get("client") or ("", 0)
        caller = await served.caller_of(headers, address=client[0])
        scope.setdefault("state", {})["caller"] = caller
        if scope["path"].startswith("/v1/users/"):  # a slash of a name is none of the address
            raw = scope["raw_path"].partition(b"?")[0].decode("latin-1").replace("%25", "%2525")
            scope["path"] = unquote(re.sub("%2f", "%252F", raw, flags=re.IGNORECASE))
        if scope["method"] in WITH_BODY:
            receive = _replayed(await self._body(receive), receive)
        with served.opened(caller, is_probe=scope["path"] == "/metrics") as now:
            scope["state"]["served"] = now
            await self.app(scope, receive, send)

    def _require_form(self, scope: Scope, headers: Headers) -> None:
        """Refuse by the headers alone."""
        limit, length = self.served.settings.max_body_bytes, headers.get("content-length", "")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            require_own_site(headers, others=self.served.settings.cors_origins)
        if length.isdigit() and int(length[:20]) > limit:
            raise too_large(limit)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] in WITH_BODY and kind != "application/json":
            raise ApiError(
                415, "The body must be JSON; send Content-Type: application/json.", "not_json"
            )

    async def _body(self, receive: Receive) -> bytes:
        """The whole body, which is JSON that says everything once, or empty."""
        settings, parts = self.served.settings, bytearray()
        try:
            async with asyncio.timeout(settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise disconnected()
                    parts += message.get("body", b"")
                    if len(parts) > settings.max_body_bytes:
                        raise too_large(settings.max_body_bytes)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            message = f"The body did not come within {settings.body_seconds} seconds; send it."
            raise ApiError(408, message, code="too_slow", headers={"Connection": "close"}) from None
        try:
            if parts:
                json.loads(parts, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            message = "The body is no valid JSON or says a key twice; send one object in UTF-8."
            raise ApiError(400, message, "invalid_json") from None
        return bytes(parts)

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        template, caller = _template(scope), scope.get("state", {}).get("caller")
        for metrics in self.served.metrics_of(caller.tenant if caller else None):
            metrics.requests.labels(template, str(status)).inc()
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


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise InvalidInputError("A key stands there twice; say it once.")
    return values


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Receives a body that was read already, then what comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


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
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    is_api = path.startswith("/v1/") or path in ("/health", "/ready", "/metrics", "/openapi.json")
    headers["Content-Security-Policy"] = API_POLICY if is_api else PAGE_POLICY
    headers.setdefault("Cache-Control", "no-store" if is_api else "no-cache")
