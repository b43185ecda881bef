"""`palate serve`: the HTTP server and its page."""

from typing import Annotated

import typer

from palate.cli.parse import BasePath, FileOverrides, LibraryFolder
from palate.cli.serve_options import (
    Adapters,
    Config,
    Device,
    Dtype,
    Engine,
    Engines,
    EngineSet,
    Host,
    Port,
    Rates,
    Url,
    engine_from,
)


def serve(
    library: LibraryFolder,
    database: Annotated[
        str,
        typer.Option(
            "--database",
            envvar="PALATE_DATABASE",
            help="sqlite:///FILE, a path, or postgresql://...",
        ),
    ] = "users.db",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    config: Config = None,
    overrides: FileOverrides = None,
    base: BasePath = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    engine: Engine = Engines.local,
    url: Url = None,
    adapters: Adapters = None,
    rates: Rates = True,
    engine_set: EngineSet = None,
) -> None:
    """Serve a library: OpenAI's API, users who teach it, and a page at /."""
    from palate.core.settings import load_settings
    from palate.serve.assemble import ServeJob, serve_library
    from palate.serve.settings import ServeSettings

    settings = load_settings(ServeSettings, config, overrides=overrides or [])
    engine_of = engine_from(engine, url=url, adapters=adapters, rates=rates, engine_set=engine_set)
    job = ServeJob(library, database, host, port, base, device, dtype, settings, engine_of)
    serve_library(job)
