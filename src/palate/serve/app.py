"""The application: routes, errors, the page."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from palate.core.errors import PalateError
from palate.serve import chat, completions, experts, feedback, health, library, questions, users
from palate.serve.errors import ApiError, from_http, from_palate, from_validation, render
from palate.serve.middleware import Middleware
from palate.serve.renew import watch
from palate.serve.state import Served
from palate.serve.wire.palate import ErrorOut

ANSWER_HEADERS = ("X-Palate-Method", "X-Palate-Learning", "X-Palate-Certified-Loss")
WEB = Path(__file__).parent / "web"


def make_app(served: Served) -> FastAPI:
    """The application that answers for these parts."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        served.worker.start()
        watching = partial(watch, served)
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
    for part in (chat, completions, library, experts, users, feedback, questions, health):
        app.include_router(part.router)
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
