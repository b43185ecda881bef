"""`palate serve`: the HTTP server and its page, in this process or as replicas on Ray."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli import options
from palate.core.errors import InvalidInputError

if TYPE_CHECKING:
    from palate.serve.assemble import EngineOf


def serve(
    library: options.LibraryFolder,
    database: options.DatabaseUrl = "users.db",
    host: Annotated[str, typer.Option(help="Public addresses need keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    config: Annotated[Path | None, typer.Option(help="YAML of the server's settings.")] = None,
    overrides: options.Overrides = None,
    base: options.BasePath = None,
    device: Annotated[str, typer.Option(help="As torch names devices.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Data type of the base's parameters.")] = "float32",
    engine: options.Engine = "local",
    engine_config: options.EngineConfig = None,
    engine_set: options.EngineSet = None,
    url: Annotated[
        str | None, typer.Option(help="URL of the vLLM, such as http://127.0.0.1:8123/v1.")
    ] = None,
    adapters: Annotated[
        Path | None,
        typer.Option(help="The experts as the vLLM has them, where its base is a rewritten one."),
    ] = None,
    rates: Annotated[
        bool, typer.Option(help="Measure at the start what bounds the rounding of soups on a vLLM.")
    ] = True,
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
        engine_config,
        engine_set=engine_set or [],
        vllm=_vllm_settings(url=url, adapters=adapters, rates=rates),
        n_replicas=replicas or 1,
    )
    job = ServeJob(library, database, host, port, base, device, dtype, settings, engine_of)
    if replicas is None:
        serve_library(job)
        return
    from palate.serve.replicas import serve_replicas

    serve_replicas(job, n_replicas=replicas, address=address, n_gpus=1.0 if gpus is None else gpus)


def _engine_from(
    engine: str, config: Path | None, *, engine_set: list[str], vllm: list[str], n_replicas: int
) -> "EngineOf | None":
    """Opens the engine of each server; `None` where they answer themselves."""
    if vllm and engine != "vllm":
        raise InvalidInputError(
            "The options --url, --adapters and --no-rates belong to --engine vllm; add it or leave "
            "them out."
        )
    if engine == "vllm":
        if config is None and not any(one.startswith("url=") for one in [*vllm, *engine_set]):
            raise InvalidInputError("The engine vllm needs the address of a server; give --url.")
        vllm = [f"n_processes={n_replicas}", *vllm]
    choice = options.chosen_engine(engine, config, [*vllm, *engine_set])
    if choice is None:
        return None
    n_processes = getattr(choice.settings, "n_processes", n_replicas)
    if n_processes < n_replicas:
        raise InvalidInputError(
            f"n_processes is {n_processes}, but {n_replicas} replicas use the {engine}; leave it "
            "out, or count all that use it."
        )
    return choice.open


def _vllm_settings(*, url: str | None, adapters: Path | None, rates: bool) -> list[str]:
    """The settings of a vLLM that have options of their own."""
    given = [] if url is None else [f"url={url}"]
    given += [] if adapters is None else [f"server_experts={adapters}"]
    return given if rates else [*given, "is_rated=false"]
