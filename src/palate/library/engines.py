"""The table of engines that answer instead of this process, and how a library opens one.

An engine is a folder in `palate.engine` and one line here. Its `engine` module has `SETTINGS`, the
class of its settings; `check_settings`, which checks everything that needs no server; and
`open_engine`, which gives a `palate.engine.protocol.Engine` for a library's parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.settings import load_settings
from palate.engine.parts import EngineParts
from palate.engine.protocol import Engine
from palate.library.soup import answers_to_measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from palate.library.library import Library

ENGINES = {
    "vllm": "palate.engine.vllm.engine",
    "openai": "palate.engine.openai.engine",
}
N_TEXTS = 4  # answers on which an engine may measure distributions


@dataclass(frozen=True)
class EngineChoice:
    """An engine with its settings, which any process can open; nothing is sent before.

    Attributes:
        kind: A name in `ENGINES`.
        settings: An instance of the engine's settings class.
    """

    kind: str
    settings: Any

    def open(self, library: "Library") -> Engine:
        """The engine, answering from the library's experts.

        Raises:
            FormatError: the server has another base or other experts.
            ProviderError: the server does not answer.
        """
        parts = EngineParts(
            library.base,
            library.bank,
            library.files.expert_folders(),
            library.controllers,
            lambda: answers_to_measure(library.files, library.base, library.bank)[:N_TEXTS],
        )
        return engine_module(self.kind).open_engine(self.settings, parts)


def choose_engine(kind: str, settings: Mapping[str, Any]) -> EngineChoice:
    """An engine that answers from a library, after its settings were checked.

    Args:
        kind: A name in `ENGINES`.
        settings: Values of the engine's settings class.

    Raises:
        InvalidInputError: there is no such engine, or a setting is unknown or out of range.
        MissingExtraError: a package that the engine needs is not installed.
    """
    module = engine_module(kind)
    checked = module.SETTINGS.checked(settings, source=f"engine {kind}")
    return EngineChoice(kind, module.check_settings(checked))


def load_engine(
    kind: str, config: Path | None = None, *, overrides: "Sequence[str]" = ()
) -> EngineChoice:
    """As `choose_engine`, with settings from a YAML file and `key=value` texts."""
    module = engine_module(kind)
    return EngineChoice(
        kind, module.check_settings(load_settings(module.SETTINGS, config, overrides=overrides))
    )


def open_engine(kind: str, settings: Mapping[str, Any], library: "Library") -> Engine:
    """The engine of this kind, answering from the library; raises as `choose_engine` and `open`."""
    return choose_engine(kind, settings).open(library)


def engine_module(kind: str) -> Any:
    """The module of an engine.

    Raises:
        InvalidInputError: there is none of this name.
        MissingExtraError: a package that it needs is not installed.
    """
    if kind not in ENGINES:
        raise InvalidInputError(f"The engine {kind!r} is unknown; use {', '.join(ENGINES)}.")
    try:
        return import_module(ENGINES[kind])
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"The engine {kind!r} needs {error.name}; install palate[serve]."
        ) from error


class VLLMEngine(EngineChoice):
    """A running vLLM that writes the answers; see docs/engines.md for how to start one."""

    def __init__(
        self,
        url: str,
        adapters: str | Path | None = None,
        *,
        is_rated: bool = True,
        **settings: Any,
    ) -> None:
        """Check everything that can be checked without the server.

        Args:
            url: URL of the server, up to and including `/v1`.
            adapters: Folder of other folders of the same experts, where the server's base is a
                rewritten one.
            is_rated: Measure at the start the bound of rounding coefficients, so that answers can
                report it.
            **settings: Other settings of `palate.engine.vllm.client.VllmSettings`.

        Raises:
            InvalidInputError: a setting is unknown or out of range, or the folder holds no
                adapters.
        """
        values = {"url": url, "server_experts": adapters, "is_rated": is_rated, **settings}
        choice = choose_engine("vllm", values)
        super().__init__("vllm", choice.settings)
