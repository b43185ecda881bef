"""`palate serve`: the HTTP server and its page."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    library: Annotated[Path, typer.Argument(help="Folder of a library.")],
    database: Annotated[
        str,
        typer.Option(
            "--database",
            envvar="PALATE_DATABASE",
            help="sqlite:///FILE, a path, or postgresql://...",
        ),
    ] = "people.db",
    host: Annotated[str, typer.Option(help="Public addresses need keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="To listen on.")] = 8000,
    config: Annotated[Path | None, typer.Option(help="YAML of the server's settings.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Over the file.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Where the base is now, if it has moved.")
    ] = None,
    device: Annotated[str, typer.Option(help="As torch names devices.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the base's parameters.")] = "float32",
) -> None:
    """Serve a library: OpenAI's API, people who teach it, and a page at /."""
    from palate.core.settings import load_settings
    from palate.recipes.serve import ServeJob, serve_library
    from palate.serve.settings import ServeSettings

    settings = load_settings(ServeSettings, config, overrides=set_ or [])
    serve_library(ServeJob(library, database, host, port, base, device, dtype, settings))
