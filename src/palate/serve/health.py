"""`/health`, `/ready`, `/metrics`: for operators."""

from fastapi import APIRouter
from prometheus_client import generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse

from palate.core.errors import ProviderError
from palate.serve.auth import OPEN, require_admin
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
    await served.require_writable()
    try:
        await run_in_threadpool(served.engine.require_ready)
    except ProviderError as error:
        raise ApiError(503, str(error), code="engine_unavailable", retry_seconds=5.0) from error
    return {"status": "ready"}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(served: Parts, caller: KnownCaller) -> PlainTextResponse:
    """For Prometheus: the whole server without keys or to operators, else an admin's own tenant."""
    if caller.role != "operator":
        require_admin(caller)
    is_whole = caller is OPEN or caller.role == "operator"
    series = served.metrics_of(None if is_whole else caller.tenant)[-1]
    text = generate_latest(series.registry)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")
