"""From the tree of errors to HTTP, in OpenAI's form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from palate.core.errors import InvalidInputError, NotCertifiedError, PalateError, ProviderError
from palate.serve import renamed

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
MAX_SHOWN = 80  # characters of a value that a message repeats
UNION_MEMBERS = ("constrained-", "list[")  # how pydantic calls the members of a union; no keys


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
    if isinstance(error, InvalidInputError):
        return ApiError(400, str(error), code="invalid_value")
    if isinstance(error, NotCertifiedError):
        return ApiError(400, str(error), code="not_certified")
    if isinstance(error, ProviderError) and error.is_retryable:
        return ApiError(503, str(error), code="unavailable", retry_seconds=2.0)
    return ApiError(500, str(error), code="failed")


def from_validation(error: RequestValidationError) -> ApiError:
    """The first broken rule, in one sentence; the values of a user's texts are not repeated."""
    broken = [(_place(rule["loc"]), rule) for rule in error.errors()]
    place, first = next((one for one in broken if one[0] in renamed.FIELDS), broken[0])
    kind = first["type"]
    if kind == "json_invalid":
        return ApiError(400, "The body is not valid JSON; send one JSON object.", "invalid_json")
    if kind == "extra_forbidden":
        now = renamed.FIELDS.get(place)
        remedy = "remove it or correct its name" if now is None else f"it is {now!r} now"
        message = f"The key {place[:MAX_SHOWN]!r} is unknown; {remedy}."
        return ApiError(400, message, code="unknown_parameter", param=place)
    if kind == "missing":
        what = f"The key {place!r} is missing; add it." if place else "The body is missing."
        return ApiError(400, what, code="missing_parameter", param=place or None)
    message = f"The value of {place[:MAX_SHOWN] or 'the body'!r} is refused: {first['msg']}."
    return ApiError(400, message, code="invalid_value", param=place or None)


def _place(parts: Sequence[object]) -> str:
    """The key that a rule is about."""
    keys = [str(part) for part in parts if part != "body"]
    return ".".join(key for key in keys if not key.startswith(UNION_MEMBERS))


def from_http(error: HTTPException, path: str = "") -> ApiError:
    """What the router itself refuses."""
    for old, new in renamed.ADDRESSES.items():
        if path == old or path.startswith(f"{old}/"):
            message = f"The address {old} is unknown; it is {new} now."
            return ApiError(404, message, code="not_found")
    codes = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
    messages = {
        400: "The body cannot be read; send one JSON object in UTF-8.",
        404: "There is nothing at this address; see docs/serving.md for what there is.",
        405: "This address does not take this method.",
        413: "The request is too large.",
    }
    message = messages.get(error.status_code, str(error.detail))
    code = codes.get(error.status_code)
    return ApiError(error.status_code, message, code=code, headers=dict(error.headers or {}))


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
            "type": KINDS.get(error.status, "server_error"),
            "param": error.param,
            "code": error.code,
        }
    }
