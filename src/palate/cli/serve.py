"""`palate serve`: the HTTP server and its page."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Engines(StrEnum):
    """What writes the answers."""

    local = "local"
    vllm = "vllm"


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
    engine: Annotated[
        Engines, typer.Option(help="What writes the answers: this process, or a running vLLM.")
    ] = Engines.local,
    url: Annotated[
        str | None, typer.Option(help="Of the vLLM, such as http://127.0.0.1:8123/v1.")
    ] = None,
    adapters: Annotated[
        Path | None,
        typer.Option(help="The experts as the vLLM has them, where its base is a rewritten one."),
    ] = None,
    rates: Annotated[
        bool,
        typer.Option(help="Measure at the start what bounds the rounding of soups on a vLLM."),
    ] = True,
    engine_set: Annotated[
        list[str] | None,
        typer.Option("--engine-set", metavar="KEY=VALUE", help="A setting of the vLLM's use."),
    ] = None,
) -> None:
    """Serve a library: OpenAI's API, people who teach it, and a page at /."""
    from palate.core.errors import InvalidInputError
    from palate.core.settings import load_settings
    from palate.recipes.serve import ServeJob, serve_library
    from palate.serve.settings import ServeSettings

    settings = load_settings(ServeSettings, config, overrides=set_ or [])
    job = ServeJob(library, database, host, port, base, device, dtype, settings)
    if engine is Engines.local:
        if url is not None or adapters is not None or engine_set:
            raise InvalidInputError(
                "The options --url, --adapters and --engine-set belong to --engine vllm; add it or "
                "leave them out."
            )
        serve_library(job)
        return
    from palate.models.vllm_wire import VllmSettings
    from palate.recipes.serve_vllm import answers_from

    if url is None:
        raise InvalidInputError("The engine vllm needs the address of a server; give --url.")
    use = load_settings(VllmSettings, overrides=[f"url={url}", *(engine_set or [])])
    engine_of = answers_from(use, adapters=adapters, is_rated=rates)
    serve_library(replace(job, engine_of=engine_of))
