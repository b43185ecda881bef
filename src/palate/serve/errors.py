"""From the tree of errors to HTTP, in OpenAI's form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from palate.core.errors import (
    InvalidInputError,
    NotCertifiedError,
    PalateError,
    ProviderError,
    UserErasedError,
)
from palate.serve import renamed

KINDS = {  # others below 500 are `invalid_request_error`, from 500 on `server_error`
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
MAX_SHOWN = 80  # characters of a value that a message repeats
UNION_MEMBERS = ("constrained-", "function-", "literal[", "list[")  # how pydantic calls these


@dataclass
class ApiError(Exception):
    """A response of HTTP status 400 and above."""

    status: int
    message: str  # one sentence: what, which value, what to do
    code: str | None = None  # for programs
    param: str | None = None  # which part of the request
    retry_seconds: float | None = None  # after which trying again can help
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        """The sentence."""
        return self.message


def from_palate(error: PalateError) -> ApiError:
    """The tree of errors on HTTP: bad input is the caller's, the rest the server's."""
    if isinstance(error, UserErasedError):
        return ApiError(409, str(error), code="user_erased")
    if isinstance(error, InvalidInputError):
        return ApiError(400, str(error), code="invalid_value")
    if isinstance(error, NotCertifiedError):
        return ApiError(400, str(error), code="not_certified")
    if isinstance(error, ProviderError) and error.is_retryable:
        return ApiError(503, str(error), code="unavailable", retry_seconds=2.0)
    return ApiError(500, str(error), code="failed")


def late() -> ApiError:
    """The refusal of what took too long."""
    message = "The answer was not ready before its deadline."
    return ApiError(504, message, code="deadline_exceeded")


def disconnected() -> ApiError:
    """What ends the work for a client that is not there to hear of it."""
    return ApiError(499, "The client closed the connection.", code="client_disconnected")


def from_validation(error: RequestValidationError) -> ApiError:
    """The first broken rule, in one sentence; the values of a user's texts are not repeated.

    Of a value that may be of several types, the one speaks whose rule is broken furthest inside.
    """
    broken = error.errors()
    first = next((rule for rule in broken if _place(rule["loc"]) in renamed.FIELDS), broken[0])
    if first["type"].endswith("_type"):
        place = first["loc"][:-1]
        others = [rule for rule in broken if rule["loc"][: len(place)] == place]
        first = max(others, key=lambda rule: (len(rule["loc"]), rule["type"][-5:] != "_type"))
    kind, shown = first["type"], _place(first["loc"])[:MAX_SHOWN]
    if kind == "extra_forbidden":
        now = renamed.FIELDS.get(shown)
        remedy = "remove it or correct its name" if now is None else f"it is {now!r} now"
        message = f"The key {shown!r} is unknown; {remedy}."
        return ApiError(400, message, code="unknown_parameter", param=shown)
    if kind == "missing":
        what = f"The key {shown!r} is missing; add it." if shown else "The body is missing."
        return ApiError(400, what, code="missing_parameter", param=shown or None)
    rule = first["msg"].removeprefix("Value error, ").rstrip(".")
    message = f"The value of {shown or 'the body'!r} is refused: {rule}."
    return ApiError(400, message, code="invalid_value", param=shown or None)


def _place(parts: Sequence[object]) -> str:
    """The key that a rule is about."""
    keys = [str(part) for part in parts if part != "body"]
    return ".".join(key for key in keys if not key.startswith(UNION_MEMBERS))


def from_http(error: HTTPException, path: str) -> ApiError:
    """What the router itself refuses."""
    for old, new in renamed.ADDRESSES.items():
        if path == old or path.startswith(f"{old}/"):
            message = f"The address {old} is unknown; it is {new} now."
            return ApiError(404, message, code="not_found")
    status = error.status_code
    if status == 405 and (error.headers or {}).get("Allow") == "GET, HEAD":  # the page's files
        status = 404
    codes = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed"}
    messages = {
        400: "The body cannot be read; send one JSON object in UTF-8.",
        404: "There is nothing at this address; see docs/serving.md for what there is.",
        405: "This address does not take this method.",
    }
    message = messages.get(status, str(error.detail))
    return ApiError(status, message, code=codes.get(status), headers=dict(error.headers or {}))


def render(error: ApiError) -> JSONResponse:
    """The error object."""
    headers = dict(error.headers)
    if error.retry_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_seconds)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body(error), status_code=error.status, headers=headers)


def body(error: ApiError) -> dict[str, dict[str, str | None]]:
    """The error object as plain data."""
    return {
        "error": {
            "message": error.message,
            "type": KINDS.get(
                error.status, "server_error" if error.status >= 500 else "invalid_request_error"
            ),
            "param": error.param,
            "code": error.code,
        }
    }
