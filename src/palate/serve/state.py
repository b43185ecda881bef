"""Everything a running server holds, and what of it each request needs."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from palate.engine.protocol import Engine
from palate.library.library import Library
from palate.methods.table import available_methods
from palate.serve.auth import OPEN, require_key, require_loopback_name
from palate.serve.believed import Believer
from palate.serve.errors import ApiError
from palate.serve.limits import RateLimit
from palate.serve.metrics import Metrics
from palate.serve.settings import ServeSettings
from palate.serve.worker import EngineWorker
from palate.store.database import Database
from palate.store.keys import ApiKey
from palate.store.store import SqlProfileStore

Result = TypeVar("Result")


@dataclass(eq=False)
class Served:
    """A server's parts."""

    settings: ServeSettings  # of the server
    library: Library  # turns what is known of a user into decisions
    engine: Engine  # writes answers
    believer: Believer  # turns beliefs into what users can read
    database: Database  # of users
    has_keys: bool  # whether requests need a key
    fingerprint: str  # identifies the base and the experts
    started_at: int = field(default_factory=lambda: int(time.time()))  # seconds since 1970
    metrics: Metrics = field(default_factory=Metrics)
    is_draining: bool = False
    n_open: int = 0
    _stores: dict[str, SqlProfileStore] = field(default_factory=dict[str, SqlProfileStore])

    def __post_init__(self) -> None:
        """Make the parts that follow from the others."""
        self.worker = EngineWorker(
            self.engine,
            max_queue=self.settings.max_queue,
            max_prompt_tokens=self.settings.max_prompt_tokens,
            context_length=self.library.base.n_positions,
            metrics=self.metrics,
        )
        self.limit = RateLimit(
            per_minute=self.settings.requests_per_minute, burst=self.settings.burst
        )

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that can be asked for."""
        return available_methods(self.library)

    def store(self, tenant: str) -> SqlProfileStore:
        """The tenant's users."""
        if tenant not in self._stores:
            self._stores[tenant] = SqlProfileStore(self.database, self.believer.learner, tenant)
        return self._stores[tenant]

    async def in_database(self, function: Callable[[], Result]) -> Result:
        """The result, computed off the event loop; ApiError where the database is out of reach."""
        try:
            return await run_in_threadpool(function)
        except (OperationalError, PoolTimeoutError) as error:
            self.metrics.refused.labels("database").inc()
            raise ApiError(
                503,
                "The database cannot be reached; nothing was stored, try again in a moment.",
                code="database_unavailable",
                retry_seconds=1.0,
            ) from error


def _served_of(request: Request) -> Any:
    return request.app.state.served


Parts = Annotated[Served, Depends(_served_of)]


Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


async def _require_caller(request: Request, served: Parts, bearer: Bearer) -> ApiKey:
    """Who calls, within the rate that is allowed."""
    if served.is_draining:
        raise ApiError(503, "The server stops; ask another.", "draining", retry_seconds=5.0)
    if served.has_keys:
        text = "" if bearer is None else bearer.credentials.strip()
        caller = await served.in_database(lambda: require_key(text, served.database))
    else:
        require_loopback_name(request)
        caller = OPEN
    wait = served.limit.take(caller.prefix)
    if wait > 0:
        served.metrics.refused.labels("rate").inc()
        raise ApiError(
            429,
            f"More than {served.settings.requests_per_minute} requests a minute; wait.",
            code="rate_limit_exceeded",
            retry_seconds=wait,
        )
    return caller


KnownCaller = Annotated[ApiKey, Depends(_require_caller)]
