"""`palate serve` and `Library.serve`: a library, a database of users, and a server over both."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.engine.local import LocalEngine
from palate.engine.prefill import PrefillSettings
from palate.engine.protocol import Engine
from palate.library.library import Library
from palate.library.opening import ServeOptions
from palate.library.store import library_places

try:
    from palate.serve.app import serve
    from palate.serve.auth import require_safe_host
    from palate.serve.believed import Believer
    from palate.serve.renew import fingerprint_of, require_parts
    from palate.serve.settings import ServeSettings
    from palate.serve.state import PROBE_SECONDS, Served
    from palate.store.database import connect, open_database
    from palate.store.keys import has_keys
except ModuleNotFoundError as error:
    raise MissingExtraError(f"The server needs {error.name}; install palate[serve].") from error

DATABASE = "users.db"  # where nothing else is said
HOST, PORT = "127.0.0.1", 8000

EngineOf = Callable[[Library], Engine]


@dataclass(frozen=True)
class ServeJob:
    """A library to be served, and where."""

    library: Path  # its folder
    database: str  # URL, or path of a SQLite file
    host: str  # address to listen on
    port: int
    base: str | None  # where the base is now, if it has moved
    device: str  # as torch names devices
    dtype: str  # of the base's parameters
    settings: ServeSettings
    engine_of: EngineOf | None = None  # opens the engine; `None` answers in this process


def serve_library(job: ServeJob) -> None:
    """Open everything and listen until a signal ends the server.

    Raises:
        InvalidInputError: the address is public and there are no keys, or there is no library.
        FormatError: the library is damaged, or the database belongs to another one.
        ProviderError: the database cannot be reached.
    """
    require_safe(job.database, host=job.host)
    serve(open_job(job), host=job.host, port=job.port)


def open_job(job: ServeJob) -> Served:
    """The parts of a server; raises as `serve_library`."""
    library = Library.load(job.library, base=job.base, device=job.device, dtype=job.dtype)
    return assemble(library, job.settings, database=job.database, engine_of=job.engine_of)


def serve_opened(library: Library, options: ServeOptions) -> None:
    """Serve a library that is open already, until a signal ends the server.

    Raises:
        InvalidInputError: the address is public and there are no keys, or an option is of another
            kind than expected.
        FormatError: the database belongs to another library.
        ProviderError: the database cannot be reached.
    """
    database, host = _database_of(options.get("store")), options.get("host", HOST)
    require_safe(database, host=host)
    settings, engine_of = options.get("settings"), _engine_of(options.get("engine"))
    if not isinstance(settings, ServeSettings):
        settings = ServeSettings.checked({} if settings is None else settings, source="settings")
    served = assemble(library, settings, database=database, engine_of=engine_of)
    serve(served, host=host, port=options.get("port", PORT))


def assemble(
    library: Library, settings: ServeSettings, *, database: str, engine_of: EngineOf | None = None
) -> Served:
    """The server's parts.

    Raises:
        InvalidInputError: the library has no experts.
        FormatError: a part of the library does not fit, or the database belongs to another one.
    """
    require_parts(library)  # while nothing answers yet
    open_engine = engine_of or partial(_own_engine, settings=settings)
    engine = open_engine(library)
    opened = open_database(database, wait_seconds=settings.database_seconds)
    places = library_places(opened, library.manifest)
    return Served(
        settings=settings,
        library=library,
        engine=engine,
        believer=Believer(library.soups, settings),
        database=opened,
        probe=connect(database, wait_seconds=PROBE_SECONDS / 2),
        has_keys=has_keys(opened),
        fingerprint=fingerprint_of(library),
        places=places,
        open_engine=open_engine,
    )


def _own_engine(library: Library, *, settings: ServeSettings) -> Engine:
    return LocalEngine(
        library.base,
        library.bank,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        prefill=PrefillSettings(settings.max_prefix_tokens, settings.prefill_chunk_tokens),
        controllers=library.controllers,
    )


def require_safe(url: str, *, host: str) -> None:
    """Refuse a public address without keys, before anything large is loaded.

    The folder of a new file is its owner's only.
    """
    folder = Path(url.removeprefix("sqlite:///")).parent
    if url.startswith("sqlite:///") or "://" not in url:
        folder.mkdir(mode=0o700, exist_ok=True)
    with closing(open_database(url)) as database:
        require_safe_host(host, has_keys=has_keys(database))


def _database_of(store: Any) -> str:
    """The URL or path behind the option `store`."""
    address = getattr(store, "url", DATABASE if store is None else store)
    if not isinstance(address, str | Path):
        raise InvalidInputError(
            f"The store is a {type(store).__name__}, which names no database; give a URL, a path, "
            "or an object with `url`."
        )
    return str(address)


def _engine_of(engine: Any) -> EngineOf | None:
    """Opens the engine, as an `EngineChoice` does; `None` answers in this process."""
    opened = getattr(engine, "open", engine)
    if opened is None or callable(opened):
        return cast(EngineOf | None, opened)
    raise InvalidInputError(
        f"The engine is a {type(engine).__name__}; give an engine such as palate.VLLMEngine, or "
        "a function from the library to one."
    )
