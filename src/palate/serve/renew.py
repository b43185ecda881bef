"""The library as its folder changes: loaded beside the one that answers, and put in its place.

Through `/v1/experts`, administrators let an expert join the running server or leave it.

The new library shares the base with the one before. Requests that come after the change see the new
one; those in progress end on the one they began on, whose engine steps in turn with the new one and
is closed when its last request has ended. What was learned of users stays: see
`palate.store.places`.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as InPath
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import TypedDict

from palate.core.errors import FormatError, InvalidInputError, PalateError
from palate.engine.local import LocalEngine
from palate.engine.protocol import Engine
from palate.library.experts import add_expert, remove_expert
from palate.library.library import Library
from palate.library.store import TENANT, library_identity, library_places
from palate.serve.auth import require_admin
from palate.serve.errors import ApiError
from palate.serve.logs import LOGGER
from palate.serve.state import KnownCaller, Served, Whole
from palate.serve.wire.palate import Name, Preference, WireIn
from palate.store.keys import ApiKey

WATCHED = ("*.json", "policies/*.json", "controller/*.json")
RETIRED_SECONDS = 0.05  # between two looks whether a request still uses the engine of before

ExpertName = Annotated[str, InPath(max_length=128)]
State = dict[Path, tuple[int, int]]  # a file's time of change and its size

router = APIRouter(tags=["library"])


def require_parts(library: Library) -> None:
    """Read and measure all that decisions need, so that no request waits for it.

    Raises:
        InvalidInputError: the library has no experts.
        FormatError: a part does not fit.
    """
    if not library.manifest.experts:
        raise InvalidInputError(
            f"The library {str(library.files.folder)!r} has no experts to serve; build some."
        )
    _ = library.soups.states, library.floor, library.strength
    _ = library.portfolio, library.controller, library.method_table


def fingerprint_of(library: Library) -> str:
    """What answers name as their system: the base and the experts."""
    return f"palate-{library_identity(library.manifest)[:12]}"


def require_renewable(served: Served) -> Callable[[Library], Engine]:
    """What opens the engine anew; InvalidInputError where it keeps the experts it began with."""
    if served.open_engine is None or not isinstance(served.engine, LocalEngine):
        raise InvalidInputError(
            f"The engine {served.engine.name!r} keeps the experts that it began with; change the "
            "library, and restart the server."
        )
    return served.open_engine


async def renew(served: Served) -> None:
    """Serve the library as its folder is now; the caller holds `served.renewing`.

    Raises:
        InvalidInputError: the engine keeps its experts, or the library has none.
        FormatError: a part does not fit; the library of before goes on.
    """
    open_engine = require_renewable(served)
    state = await asyncio.to_thread(state_of, served.library.files.folder)
    library, engine, places = await asyncio.to_thread(_opened, served, open_engine)
    old_library, old_engine = served.library, served.engine
    await served.worker.begin(engine)
    served.take(library, engine, places=places, fingerprint=fingerprint_of(library))
    served.loaded = state
    LOGGER.info("the library was loaded anew: %s experts", len(library.manifest.experts))
    retiring = asyncio.ensure_future(_retire(served, old_library, old_engine))
    served.retiring.add(retiring)
    retiring.add_done_callback(served.retiring.discard)


def _opened(
    served: Served, open_engine: Callable[[Library], Engine]
) -> tuple[Library, Engine, tuple[int, ...]]:
    library = served.library.reloaded()
    try:
        require_parts(library)
        engine = open_engine(library)
        places = library_places(served.database, library.manifest, is_renewed=True)
    except BaseException:
        library.bank.close()
        raise
    return library, engine, places


async def _retire(served: Served, library: Library, engine: Engine) -> None:
    while served.n_using[engine]:
        await asyncio.sleep(RETIRED_SECONDS)
    await served.worker.end(engine)
    await asyncio.to_thread(library.bank.close)
    del served.n_using[engine]


def state_of(folder: Path) -> State:
    """The files of a library by which a change of it is seen."""
    files = [path for pattern in WATCHED for path in folder.glob(pattern)]
    return {path: (stat.st_mtime_ns, stat.st_size) for path in files for stat in [path.stat()]}


async def watch(served: Served) -> None:
    """Load the library anew when its folder has changed and is the same at two looks."""
    every, folder = served.settings.watch_seconds, served.library.files.folder
    if every is None:
        return
    served.loaded = tried = before = await asyncio.to_thread(state_of, folder)
    while True:
        await asyncio.sleep(every)
        try:
            state = await asyncio.to_thread(state_of, folder)
            if state == before and state not in (served.loaded, tried):
                tried = state  # what does not fit is tried again when it changes
                async with served.renewing:
                    await renew(served)
            before = state
        except (PalateError, OSError, SQLAlchemyError):
            LOGGER.exception("the changed library was not loaded; the one of before goes on")


class ExpertIn(WireIn):
    """An adapter in the server's `experts_folder`, and the preference that it was trained for."""

    name: Name
    preference: Preference


class ExpertsOut(TypedDict):
    """The experts that new requests are answered with."""

    experts: list[str]
    fingerprint: str


@router.post("/v1/experts", status_code=201)
async def add(body: ExpertIn, whole: Whole, caller: KnownCaller) -> ExpertsOut:
    """Let an expert join: copied into the library, and there for requests from now on."""
    source = _folder(whole, caller) / body.name
    change = partial(add_expert, name=body.name, source=source, wanted=body.preference)
    return await _changed(whole, change)


@router.delete("/v1/experts/{name}")
async def remove(name: ExpertName, whole: Whole, caller: KnownCaller) -> ExpertsOut:
    """Let an expert leave: requests in progress end with it; its folder stays."""
    _folder(whole, caller)
    return await _changed(whole, partial(remove_expert, name=name))


def _folder(served: Served, caller: ApiKey) -> Path:
    """Where adapters may be added from; ApiError for all but administrators of the server."""
    require_admin(caller)
    if caller.tenant != TENANT:  # experts answer all tenants
        message = f"Only administrators of the tenant {TENANT!r} change the experts of all."
        raise ApiError(403, message, code="not_admin")
    folder = served.settings.experts_folder
    if folder is None:
        message = "Experts are fixed here; start the server with --set experts_folder=FOLDER."
        raise ApiError(403, message, code="experts_fixed")
    require_renewable(served)
    return folder


async def _changed(served: Served, change: Callable[[Library], None]) -> ExpertsOut:
    """Change the library's folder and load it; what is begun ends, also without the client."""

    async def work() -> ExpertsOut:
        async with served.renewing:
            await asyncio.to_thread(change, served.library)
            await renew(served)
        names = list(served.library.manifest.expert_names)
        return ExpertsOut(experts=names, fingerprint=served.fingerprint)

    try:
        return await asyncio.shield(asyncio.ensure_future(work()))
    except FormatError as error:
        raise ApiError(400, str(error), code="invalid_value", param="name") from error
    except OSError as error:
        message = (
            f"The library's folder cannot be changed ({error.strerror}); let the server write."
        )
        raise ApiError(403, message, code="read_only") from error
