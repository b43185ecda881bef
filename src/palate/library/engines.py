"""The table of engines that answer instead of this process, and how a library opens one.

An engine is a folder in `palate.engine` and an entry of `ENGINES` here: the class of its settings,
the check of everything that needs no server, and the function that opens it for a library's parts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.settings import Settings, load_settings
from palate.engine.parts import EngineParts
from palate.engine.protocol import Engine
from palate.library.soup import answers_to_measure

if TYPE_CHECKING:
    from palate.library.library import Library

N_TEXTS = 4  # answers on which an engine may measure distributions


@dataclass(frozen=True)
class EngineKind:
    """How engines of one kind are made."""

    settings: type[Settings]  # class of the settings
    check: Callable[[Any], Settings]  # the settings, after all that needs no server was checked
    open: Callable[[Any, EngineParts], Engine]  # the engine for a library's parts


def _vllm() -> EngineKind:
    from palate.engine.vllm import engine as vllm

    return EngineKind(vllm.VllmSettings, vllm.check_settings, vllm.open_engine)


def _openai() -> EngineKind:
    from palate.engine.openai import engine as openai

    return EngineKind(openai.OpenAISettings, openai.check_settings, openai.open_engine)


ENGINES = {"vllm": _vllm, "openai": _openai}


@dataclass(frozen=True)
class EngineChoice:
    """An engine with its settings, which any process can open; nothing is sent before."""

    kind: str  # a name in `ENGINES`
    settings: Settings  # an instance of the engine's settings class

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
        return engine_kind(self.kind).open(self.settings, parts)


def choose_engine(kind: str, settings: Mapping[str, Any]) -> EngineChoice:
    """An engine that answers from a library, after its settings were checked.

    Raises:
        InvalidInputError: there is no such engine, or a setting is unknown or out of range.
        MissingExtraError: a package that the engine needs is not installed.
    """
    engine = engine_kind(kind)
    checked = engine.settings.checked(settings, source=f"engine {kind}")
    return EngineChoice(kind, engine.check(checked))


def load_engine(
    kind: str, config: Path | None = None, *, overrides: Sequence[str] = ()
) -> EngineChoice:
    """As `choose_engine`, with settings from a YAML file and `key=value` texts."""
    engine = engine_kind(kind)
    settings = load_settings(engine.settings, config, overrides=overrides)
    return EngineChoice(kind, engine.check(settings))


def open_engine(kind: str, settings: Mapping[str, Any], library: "Library") -> Engine:
    """The engine of this kind, answering from the library; raises as `choose_engine` and `open`."""
    return choose_engine(kind, settings).open(library)


def engine_kind(kind: str) -> EngineKind:
    """The engines of this kind.

    Raises:
        InvalidInputError: there are none.
        MissingExtraError: a package that they need is not installed.
    """
    if kind not in ENGINES:
        raise InvalidInputError(f"The engine {kind!r} is unknown; use {', '.join(ENGINES)}.")
    try:
        return ENGINES[kind]()
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

        The URL ends in `/v1`; `adapters` is a folder of other folders of the same experts, where
        the server's base is a rewritten one; `is_rated` measures at the start the bound of rounding
        coefficients, so that answers can report it; other settings are those of
        `palate.engine.vllm.client.VllmSettings`.

        Raises:
            InvalidInputError: a setting is wrong, or the folder holds no adapters.
        """
        values = {"url": url, "server_experts": adapters, "is_rated": is_rated, **settings}
        choice = choose_engine("vllm", values)
        super().__init__("vllm", choice.settings)
