"""The application: routes, also `/health`, `/ready` and `/metrics`, errors, the page; and uvicorn.

The server drains: after a signal, running answers may end.
"""

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from palate.core.errors import PalateError, ProviderError
from palate.serve import feedback, library, questions, renew, respond, users
from palate.serve.auth import OPEN, require_admin
from palate.serve.connections import BoundedProtocol
from palate.serve.errors import ApiError, from_http, from_palate, from_validation, render
from palate.serve.logs import LOGGER, set_up_logs
from palate.serve.middleware import Middleware
from palate.serve.state import KnownCaller, Parts, Served
from palate.serve.wire.palate import ErrorOut

ANSWER_HEADERS = ("X-Palate-Method", "X-Palate-Learning", "X-Palate-Certified-Loss")
WEB = Path(__file__).parent / "web"
operation = APIRouter(tags=["operation"])  # for operators


@operation.get("/health")
async def health() -> dict[str, str]:
    """The process is alive."""
    return {"status": "alive"}


@operation.get("/ready")
async def ready(served: Parts) -> dict[str, str]:
    """Requests will be answered: the engine runs, the database answers, the server goes on."""
    if served.is_draining or not served.worker.is_alive:
        raise ApiError(503, "The server stops.", code="draining", retry_seconds=5.0)
    await served.require_writable()
    try:
        await run_in_threadpool(served.engine.require_ready)
    except ProviderError as error:
        raise ApiError(503, str(error), code="engine_unavailable", retry_seconds=5.0) from error
    return {"status": "ready"}


@operation.get("/metrics", response_class=PlainTextResponse)
async def metrics(served: Parts, caller: KnownCaller) -> PlainTextResponse:
    """For Prometheus: the whole server without keys or to operators, else an admin's own tenant."""
    if caller.role != "operator":
        require_admin(caller)
    is_whole = caller is OPEN or caller.role == "operator"
    series = served.metrics_of(None if is_whole else caller.tenant)[-1]
    text = generate_latest(series.registry)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def make_app(served: Served) -> FastAPI:
    """The application that answers for these parts."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        served.worker.start()
        watching = partial(renew.watch, served)
        chores = (served.tidy, served.watch_keys, watching)
        chores = [asyncio.ensure_future(chore()) for chore in chores]
        yield
        for chore in (*chores, *served.retiring):
            chore.cancel()
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
        responses={status: {"model": ErrorOut} for status in ("4XX", "5XX")},
        telemetry={
            "tracing": served.settings.is_traced,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
        },
    )
    app.state.served = served
    for part in (respond, library, renew, users, feedback, questions):
        app.include_router(part.router)
    app.include_router(operation)
    app.router.default = StaticFiles(directory=WEB, html=True)  # after all addresses of the API
    _handle_errors(app)
    app.add_middleware(Middleware, served=served)
    if served.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=served.settings.cors_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["*"],  # clients add their own, such as x-stainless-lang
            expose_headers=["X-Request-Id", "Retry-After", *ANSWER_HEADERS],
        )
    return app


def _handle_errors(app: FastAPI) -> None:
    async def handle(request: Request, error: Any) -> Response:
        if isinstance(error, HTTPException):
            error = from_http(error, request.scope["path"])
        elif isinstance(error, RequestValidationError):
            error = from_validation(error)
        elif isinstance(error, PalateError):
            error = from_palate(error)
        return render(error)

    for kind in (ApiError, PalateError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)


class _Draining(uvicorn.Server):
    """Lets the application know when it shall stop."""

    served: Served

    def handle_exit(self, sig: int, frame: object) -> None:
        if not self.served.is_draining:
            LOGGER.info("draining")
        self.served.is_draining = True
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


def serve(served: Served, *, host: str, port: int) -> None:
    """Listen until SIGTERM or SIGINT; running answers may end first."""
    set_up_logs(served.settings.log_level)
    settings = served.settings
    with suppress(ImportError):  # on Windows
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is an open file
    protocol: Any = partial(BoundedProtocol, settings)
    keys = "every request needs a key" if served.has_keys else "no key is needed"
    LOGGER.info("starting: %s, %s requests a minute each", keys, served.limit.per_minute)
    config = uvicorn.Config(
        make_app(served),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
        timeout_keep_alive=30,
        http=protocol,
        ws="none",
    )
    server = _Draining(config)
    server.served = served
    gc.collect()
    gc.freeze()  # model and libraries stay: going through them again stops every answer for 0.3 s
    try:
        server.run()
    finally:
        served.database.close()
