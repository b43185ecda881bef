"""The library as its folder changes: loaded beside the one that answers, and put in its place.

The new library shares the base with the one before. Requests that come after the change see the new
one; those in progress end on the one they began on, whose engine steps in turn with the new one and
is closed when its last request has ended. What was learned of users stays: see
`palate.store.places`.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from palate.core.errors import InvalidInputError, PalateError
from palate.engine.local import LocalEngine
from palate.engine.protocol import Engine
from palate.library.library import Library
from palate.library.store import library_identity, library_places
from palate.serve.logs import LOGGER
from palate.serve.state import Served

WATCHED = ("*.json", "policies/*.json", "controller/*.json")
RETIRED_SECONDS = 0.05  # between two looks whether a request still uses the engine of before

State = dict[Path, tuple[int, int]]  # a file's time of change and its size


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
