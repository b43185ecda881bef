"""Options of every command that starts servers, and the engine that they name."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.core.errors import InvalidInputError

if TYPE_CHECKING:
    from palate.serve.assemble import EngineOf


class Engines(StrEnum):
    """What writes the answers."""

    local = "local"
    vllm = "vllm"


Host = Annotated[str, typer.Option(help="Public addresses need keys.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="To listen on.")]
Config = Annotated[Path | None, typer.Option(help="YAML of the server's settings.")]
Device = Annotated[str, typer.Option(help="As torch names devices.")]
Dtype = Annotated[str, typer.Option(help="Of the base's parameters.")]
Engine = Annotated[
    Engines, typer.Option(help="What writes the answers: the server itself, or a running vLLM.")
]
Url = Annotated[str | None, typer.Option(help="Of the vLLM, such as http://127.0.0.1:8123/v1.")]
Adapters = Annotated[
    Path | None,
    typer.Option(help="The experts as the vLLM has them, where its base is a rewritten one."),
]
Rates = Annotated[
    bool,
    typer.Option(help="Measure at the start what bounds the rounding of soups on a vLLM."),
]
EngineSet = Annotated[
    list[str] | None,
    typer.Option("--engine-set", metavar="KEY=VALUE", help="A setting of the vLLM's use."),
]


def engine_from(
    engine: Engines,
    *,
    url: str | None,
    adapters: Path | None,
    rates: bool,
    engine_set: list[str] | None,
    n_replicas: int = 1,
) -> "EngineOf | None":
    """What makes the engine of each of `n_replicas` servers; `None` where they answer themselves.

    Raises:
        InvalidInputError: the options do not fit together, or there is less of the vLLM than one
            share for each.
    """
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
