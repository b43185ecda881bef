"""`/health`, `/ready`, `/metrics`: for operators."""

from fastapi import APIRouter
from sqlalchemy import text
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse

from palate.core.errors import ProviderError
from palate.serve.auth import require_admin
from palate.serve.errors import ApiError
from palate.serve.state import KnownCaller, Parts

router = APIRouter(tags=["operation"])


@router.get("/health")
async def health() -> dict[str, str]:
    """The process is alive."""
    return {"status": "alive"}


@router.get("/ready")
async def ready(served: Parts) -> dict[str, str]:
    """Requests will be answered: the engine runs, the database answers, the server goes on."""
    if served.is_draining or not served.worker.is_alive:
        raise ApiError(503, "The server stops.", code="draining", retry_seconds=5.0)

    def query() -> None:
        with served.database.reading() as connection:
            connection.execute(text("SELECT 1"))

    await served.in_database(query)
    try:
        await run_in_threadpool(served.engine.require_ready)
    except ProviderError as error:
        raise ApiError(503, str(error), code="engine_unavailable", retry_seconds=5.0) from error
    return {"status": "ready"}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(served: Parts, caller: KnownCaller) -> PlainTextResponse:
    """For Prometheus; with keys, for administrators."""
    require_admin(caller)
    return PlainTextResponse(
        served.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )
