"""`palate serve`: the HTTP server and its page, in this process or as replicas on Ray."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli import options
from palate.core.errors import InvalidInputError

if TYPE_CHECKING:
    from palate.serve.assemble import EngineOf


class Engines(StrEnum):
    """What writes the answers."""

    local = "local"
    vllm = "vllm"


def serve(
    library: options.LibraryFolder,
    database: Annotated[
        str,
        typer.Option(
            "--database",
            envvar="PALATE_DATABASE",
            help="sqlite:///FILE, a path, or postgresql://..., which replicas need.",
        ),
    ] = "users.db",
    host: Annotated[str, typer.Option(help="Public addresses need keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    config: Annotated[Path | None, typer.Option(help="YAML of the server's settings.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the file."),
    ] = None,
    base: options.BasePath = None,
    device: Annotated[str, typer.Option(help="As torch names devices.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Data type of the base's parameters.")] = "float32",
    engine: Annotated[
        Engines, typer.Option(help="What writes the answers: the server itself, or a running vLLM.")
    ] = Engines.local,
    url: Annotated[
        str | None, typer.Option(help="URL of the vLLM, such as http://127.0.0.1:8123/v1.")
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
        typer.Option("--engine-set", metavar="KEY=VALUE", help="A setting of the engine."),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Serve as so many processes on Ray Serve.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster for the replicas; by default one starts here.")
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="GPUs of each replica with --device cuda; 0.25 puts 4 on one. Default: 1.",
        ),
    ] = None,
) -> None:
    """Serve a library: OpenAI's API, feedback that users are learned from, and a page at /."""
    from palate.core.settings import load_settings
    from palate.serve.assemble import ServeJob, serve_library
    from palate.serve.settings import ServeSettings

    if replicas is None and (address is not None or gpus is not None):
        raise InvalidInputError("The options --address and --gpus belong to --replicas N.")
    settings = load_settings(ServeSettings, config, overrides=overrides or ())
    engine_of = _engine_from(
        engine,
        url=url,
        adapters=adapters,
        rates=rates,
        engine_set=engine_set,
        n_replicas=replicas or 1,
    )
    job = ServeJob(library, database, host, port, base, device, dtype, settings, engine_of)
    if replicas is None:
        serve_library(job)
        return
    from palate.serve.replicas import serve_replicas

    serve_replicas(job, n_replicas=replicas, address=address, n_gpus=1.0 if gpus is None else gpus)


def _engine_from(
    engine: Engines,
    *,
    url: str | None,
    adapters: Path | None,
    rates: bool,
    engine_set: list[str] | None,
    n_replicas: int,
) -> "EngineOf | None":
    """What makes the engine of each server; `None` where they answer themselves."""
    if engine is Engines.local:
        if url is not None or adapters is not None or engine_set:
            raise InvalidInputError(
                "The options --url, --adapters and --engine-set belong to --engine vllm; add it or "
                "leave them out."
            )
        return None
    from palate.core.settings import load_settings
    from palate.engine.vllm.wire import VllmSettings
    from palate.serve.vllm_answers import answers_from

    if url is None:
        raise InvalidInputError("The engine vllm needs the address of a server; give --url.")
    given = [f"url={url}", f"n_processes={n_replicas}", *(engine_set or [])]
    use = load_settings(VllmSettings, overrides=given)
    if use.n_processes < n_replicas:
        raise InvalidInputError(
            f"n_processes is {use.n_processes}, but {n_replicas} replicas use the vLLM; leave it "
            "out, or count all that use it."
        )
    return answers_from(use, adapters=adapters, is_rated=rates)
