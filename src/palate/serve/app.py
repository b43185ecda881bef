"""The application: routes, errors, the page."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from palate.core.errors import PalateError
from palate.serve import chat, completions, feedback, health, library, questions, users
from palate.serve.errors import (
    ApiError,
    documented,
    from_http,
    from_palate,
    from_validation,
    render,
)
from palate.serve.logs import LOGGER
from palate.serve.middleware import Middleware
from palate.serve.state import Served

WEB = Path(__file__).parent / "web"
ROUTERS = (
    chat.router,
    completions.router,
    library.router,
    users.router,
    feedback.router,
    questions.router,
    health.router,
)


def make_app(served: Served) -> FastAPI:
    """The application that answers for these parts."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        served.worker.start()
        yield
        served.worker.stop()
        await run_in_threadpool(served.engine.close)  # after SIGTERM, nothing past this runs

    app = FastAPI(
        title="palate",
        summary="Answers by each user's preference; OpenAI-compatible.",
        version=version("palate"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=documented(),
        telemetry={
            "tracing": served.settings.is_traced,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
        },
    )
    app.state.served = served
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/", _Page(directory=WEB, html=True), name="page")
    _handle_errors(app)
    app.openapi_schema = _schema(app)
    app.add_middleware(Middleware, served=served)
    return app


class _Page(StaticFiles):
    """The page's files; an address of the API answers a wrong HTTP method with 405."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        methods = {
            method
            for router in ROUTERS
            for route in router.routes
            if isinstance(route, APIRoute) and route.path_regex.match(scope["path"])
            for method in route.methods or ()
        }
        if methods:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        return await super().get_response(path, scope)


def _handle_errors(app: FastAPI) -> None:
    def rendered(to_api: Callable[..., ApiError]) -> Callable[[Request, Any], Awaitable[Response]]:
        async def handle(_request: Request, error: Any) -> Response:
            return render(to_api(error))

        return handle

    async def on_http(request: Request, error: Any) -> Response:
        cause = error.__cause__  # of a body that could not be read
        path = request.scope["path"]
        return render(cause if isinstance(cause, ApiError) else from_http(error, path))

    async def on_any(_request: Request, error: Exception) -> Response:
        LOGGER.error("a request failed", exc_info=error)
        return render(ApiError(500, "The server failed; try again.", code="failed"))

    app.add_exception_handler(ApiError, rendered(lambda error: error))
    app.add_exception_handler(PalateError, rendered(from_palate))
    app.add_exception_handler(RequestValidationError, rendered(from_validation))
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_any)


def _schema(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI schema; what breaks a rule is answered with 400, not 422."""
    schema = app.openapi()
    for operations in schema["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["security"] = [{"key": []}, {}]
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
    schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path in ("/v1/chat/completions", "/v1/completions"):
        content = schema["paths"][path]["post"]["responses"]["200"]["content"]
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return schema
