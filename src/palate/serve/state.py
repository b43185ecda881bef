"""Everything a running server holds, and what of it each request needs."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends
from fastapi.security import HTTPBearer
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import Headers
from starlette.requests import Request

from palate.core.errors import PalateError, ProviderError
from palate.engine.protocol import Engine
from palate.library.library import Library
from palate.library.words import words_learner
from palate.methods.table import available_methods
from palate.serve.auth import OPEN, require_key, require_loopback_name
from palate.serve.believed import Believer
from palate.serve.errors import ApiError
from palate.serve.limits import RateLimit
from palate.serve.logs import LOGGER
from palate.serve.metrics import Metrics, TenantMetrics
from palate.serve.prefixes import OwnPrefixes
from palate.serve.settings import ServeSettings
from palate.serve.worker import EngineWorker
from palate.store.database import Database, retried
from palate.store.erase import clear_erased
from palate.store.keys import ApiKey, end_keys, has_keys
from palate.store.responses import delete_responses
from palate.store.store import SqlProfileStore
from palate.store.users import find_user, tenant_usage

Result = TypeVar("Result")
N_READERS, N_WRITERS = 9, 6  # threads; together the connections of the database's pool
PROBE_SECONDS = 0.9
USAGE_SECONDS = 10.0  # for which a measured usage counts
OPEN_FACTOR = 10  # by which the rate is larger where everybody on this machine shares it


@dataclass(eq=False)
class Served:
    """A server's parts."""

    settings: ServeSettings  # of the server
    library: Library  # turns what is known of a user into decisions
    engine: Engine  # writes answers
    believer: Believer  # turns beliefs into what users can read
    database: Database  # of users
    probe: Database  # the same, on connections of its own that wait for nobody
    has_keys: bool  # whether requests need a key
    fingerprint: str  # identifies the base and the experts
    places: tuple[int, ...] | None = None  # of the experts in stored features
    open_engine: Callable[[Library], Engine] | None = None  # for the library as it changes
    started_at: int = field(default_factory=lambda: int(time.time()))  # seconds since 1970
    metrics: Metrics = field(default_factory=Metrics)
    is_draining: bool = False
    headers: dict[str, str] = field(default_factory=dict[str, str])  # of every answer
    n_open: Counter[str] = field(default_factory=Counter[str])  # requests in progress by key
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
        factor = 1 if self.has_keys else OPEN_FACTOR
        rate, burst = factor * self.settings.requests_per_minute, factor * self.settings.burst
        self.limit = RateLimit(per_minute=rate, burst=burst)
        wrong = self.settings.wrong_keys_per_minute
        self.wrong_keys = RateLimit(per_minute=wrong, burst=wrong)
        self._good_keys: set[int] = set()  # hashes of keys that worked once
        self._metrics: dict[str, TenantMetrics] = {}
        self.own_prefixes = OwnPrefixes()
        self._n_erased: Counter[str] = Counter()
        self._usage: dict[str, tuple[float, int, int]] = {}  # when it was measured, users, bytes
        self._probing: asyncio.Future[None] | None = None
        self.n_using: Counter[Engine] = Counter()  # requests by the engine they began on
        self.renewing = asyncio.Lock()
        self.retiring: set[asyncio.Future[None]] = set()  # engines that end their last requests
        self.loaded: object = None  # the state of the folder that the library was read from
        self._readers, self._writers = CapacityLimiter(N_READERS), CapacityLimiter(N_WRITERS)

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods that can be asked for."""
        return available_methods(self.library)

    def take(
        self, library: Library, engine: Engine, *, places: tuple[int, ...], fingerprint: str
    ) -> None:
        """Answer what comes from now on from another library."""
        self.library, self.engine = library, engine
        self.places, self.fingerprint = places, fingerprint
        self.believer, self._stores = Believer(library.soups, self.settings), {}

    def store(self, tenant: str) -> SqlProfileStore:
        """The tenant's users."""
        if tenant not in self._stores:
            learner, places = self.believer.learner, self.places
            read_words = words_learner(self.library, learner)
            self._stores[tenant] = SqlProfileStore(
                self.database, learner, tenant, places, read_words
            )
        return self._stores[tenant]

    def metrics_of(self, tenant: str | None) -> list[TenantMetrics]:
        """The server's series and, where a tenant is known, the tenant's."""
        if tenant is None:
            return [self.metrics]
        return [self.metrics, self._metrics.setdefault(tenant, TenantMetrics())]

    async def in_database(
        self, function: Callable[[], Result], *, is_writing: bool = False
    ) -> Result:
        """The result, computed off the event loop; ApiError where the database is out of reach.

        Writers wait for each other on threads of their own, so that readers never wait for them.
        """
        pool = self._writers if is_writing else self._readers
        try:
            async with asyncio.timeout(self.settings.database_seconds + 1.0):
                return await to_thread.run_sync(
                    retried, function, limiter=pool, abandon_on_cancel=True
                )
        except (DBAPIError, PoolTimeoutError, TimeoutError) as error:
            self.metrics.refused.labels("database").inc()
            unknown = "whether it was stored is not known; send it again, with the same key"
            message = f"The database cannot be reached; {unknown if is_writing else 'try again'}."
            raise ApiError(503, message, code="database_unavailable", retry_seconds=1.0) from error

    async def write(self, function: Callable[..., Result], **named: object) -> Result:
        """What a function of the database gives that writes."""
        return await self.in_database(lambda: function(self.database, **named), is_writing=True)

    async def read(self, function: Callable[..., Result], **named: object) -> Result:
        """What a function of the database gives that only reads."""
        return await self.in_database(lambda: function(self.database, **named))

    async def require_writable(self) -> None:
        """Refuse with ApiError, within a second, while the database cannot be written."""
        if self._probing is None or self._probing.done():  # one look at a time, on its own thread
            self._probing = asyncio.ensure_future(asyncio.to_thread(self._probe))
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await asyncio.shield(self._probing)
        except (DBAPIError, ProviderError, TimeoutError) as error:
            message = "The database cannot be written now."
            code = "database_unavailable"
            raise ApiError(503, message, code=code, retry_seconds=1.0) from error

    def _probe(self) -> None:
        with closing(self.probe):  # the next look reads the file anew
            self.probe.require_writable()

    async def caller_of(self, headers: Headers, *, address: str) -> ApiKey:
        """Who calls, within the rate that is allowed; ApiError for everybody else."""
        if self.is_draining:
            raise ApiError(503, "The server stops; ask another.", "draining", retry_seconds=5.0)
        if self.has_keys:
            caller = await self._caller_with_key(headers.get("authorization", ""), address)
        else:
            require_loopback_name(headers)
            caller = OPEN
        what = f"More than {self.limit.per_minute} requests a minute"
        self._refuse_too_many("rate", self.limit.take(caller.prefix), what)
        return caller

    async def _caller_with_key(self, authorization: str, address: str) -> ApiKey:
        """Who has this key; an address that tried too many wrong ones is not looked up."""
        scheme, _, text = authorization.partition(" ")
        text = text.strip() if scheme.lower() == "bearer" else ""
        digest = hash(text)
        if digest not in self._good_keys:
            self._refuse_too_many("keys", self.wrong_keys.take(address, n=0), "Too many wrong keys")
        try:
            caller = await self.in_database(lambda: require_key(text, self.database))
        except ApiError as error:
            if error.status == 401:
                self.wrong_keys.take(address)
            raise
        self._good_keys.add(digest)
        return caller

    async def admit(self, tenant: str, user: str) -> int:
        """The user's number, for what is begun now; added if there is none and there is room."""
        await self.require_room(tenant, user)
        store = self.store(tenant)
        return await self.in_database(lambda: store.admit(user), is_writing=True)

    async def require_room(self, tenant: str, user: str) -> None:
        """Refuse with ApiError to store more of a tenant than its quota, or of one user more."""
        settings, now = self.settings, time.monotonic()
        at, n_users, size = self._usage.get(tenant, (-math.inf, 0, 0))
        if now - at > USAGE_SECONDS:
            usage = await self.read(tenant_usage, tenant=tenant)
            _, n_users, size = self._usage[tenant] = (now, *usage)
        is_full = size >= settings.max_stored_bytes
        if not is_full and n_users >= settings.max_users:
            is_full = await self.read(find_user, tenant=tenant, name=user) is None
        if is_full:
            message = (
                f"The tenant stores {n_users} users and {size} bytes, as much as it may; erase "
                "users, or raise max_users or max_stored_bytes."
            )
            raise ApiError(403, message, code="quota_exceeded")

    def scope(self, tenant: str) -> str:
        """Whose prompts share a prefix cache: the tenant's since it last erased somebody."""
        return f"{tenant}/{self._n_erased[tenant]}"

    def forget_prefixes(self, tenant: str) -> None:
        """Drop what is cached of the tenant's earlier prompts; no later one meets it."""
        self.worker.forget(self.scope(tenant))
        self._n_erased[tenant] += 1

    async def watch_keys(self) -> None:
        """Ask for keys from the second on in which the first one is issued."""
        while not self.has_keys:
            await asyncio.sleep(1.0)
            with suppress(ApiError, PalateError):  # the database is away; the next second comes
                self.has_keys = await self.read(has_keys)

    async def tidy(self) -> None:
        """Now and every hour, delete answers that are too old and clear what was erased."""
        while True:
            try:
                await asyncio.to_thread(self._tidy)
            except (DBAPIError, PalateError):  # the database is away; the next hour comes
                LOGGER.exception("old answers were not deleted")
            await asyncio.sleep(3600.0)

    def _tidy(self) -> None:
        if self.settings.keep_days is not None:
            before = time.time() - 86_400.0 * self.settings.keep_days
            LOGGER.info("old answers deleted: %s", delete_responses(self.database, before=before))
        end_keys(self.database)
        clear_erased(self.database)

    @contextmanager
    def opened(self, caller: ApiKey, *, is_probe: bool) -> Generator["Served"]:
        """Counts a request while it is in progress; ApiError where too many are.

        The request gets the server as it is now, and ends on the library that it began on.
        """
        settings, key = self.settings, caller.prefix
        most = settings.max_open if caller is OPEN else settings.max_open_per_key
        is_full = self.n_open[key] >= most or self.n_open.total() >= settings.max_open
        self._refuse_too_many("open", float(is_full and not is_probe), "Too many requests are open")
        self.n_open[key] += 1
        now = copy(self)
        self.n_using[now.engine] += 1
        try:
            yield now
        finally:
            self.n_using[now.engine] -= 1
            self.n_open[key] -= 1
            self.n_open += Counter()  # forgets zeros

    def _refuse_too_many(self, reason: str, wait: float, what: str) -> None:
        if wait > 0:
            self.metrics.refused.labels(reason).inc()
            code = "too_many_open" if reason == "open" else "rate_limit_exceeded"
            raise ApiError(429, f"{what}; wait.", code=code, retry_seconds=wait)


def _served_of(request: Request) -> Any:
    return getattr(request.state, "served", request.app.state.served)


def _whole_of(request: Request) -> Any:
    return request.app.state.served


Parts = Annotated[Served, Depends(_served_of)]  # as they were when the request came
Whole = Annotated[Served, Depends(_whole_of)]  # to change them


_BEARER = HTTPBearer(auto_error=False)  # for the schema


def _caller_of(request: Request, _bearer: Annotated[object, Depends(_BEARER)]) -> ApiKey:
    """Who calls, as the middleware knows."""
    return request.state.caller


KnownCaller = Annotated[ApiKey, Depends(_caller_of)]
