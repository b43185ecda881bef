"""`palate`: answers as each user prefers them, from a small library of experts on one base model.

    import palate

    library = palate.Library.load("library")
    output = library.generate("Why is the sky blue?", preference={"simple": 0.6, "friendly": 0.4})

The names below are the face of the package. Each is imported when it is first used: `import palate`
alone imports neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palate.build.library import build
    from palate.core.decision import Decision, Known, Messages, Method
    from palate.core.errors import FormatError, InvalidInputError, MissingExtraError, PalateError
    from palate.core.protocols import SamplingParams
    from palate.evaluate.evaluation import evaluate_library as evaluate
    from palate.library.engines import VLLMEngine
    from palate.library.generate import Output, Score
    from palate.library.library import Library
    from palate.library.store import UserStore, open_store

_PLACES = {
    "Decision": "palate.core.decision",
    "FormatError": "palate.core.errors",
    "InvalidInputError": "palate.core.errors",
    "Known": "palate.core.decision",
    "Library": "palate.library.library",
    "Messages": "palate.core.decision",
    "Method": "palate.core.decision",
    "MissingExtraError": "palate.core.errors",
    "Output": "palate.library.generate",
    "PalateError": "palate.core.errors",
    "SamplingParams": "palate.core.protocols",
    "Score": "palate.library.generate",
    "UserStore": "palate.library.store",
    "VLLMEngine": "palate.library.engines",
    "build": "palate.build:",  # packages that can be called, see core/callable_module.py
    "evaluate": "palate.evaluate:",
    "open_store": "palate.library.store",
}

__all__ = [
    "Decision",
    "FormatError",
    "InvalidInputError",
    "Known",
    "Library",
    "Messages",
    "Method",
    "MissingExtraError",
    "Output",
    "PalateError",
    "SamplingParams",
    "Score",
    "UserStore",
    "VLLMEngine",
    "build",
    "evaluate",
    "open_store",
]


def __getattr__(name: str) -> Any:
    """Import a name of the face when it is first used (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module 'palate' has no attribute {name!r}")
    place, is_module, _ = _PLACES[name].partition(":")
    try:
        module = import_module(place)
    except ModuleNotFoundError as error:
        from palate.core.extras import missing_extra

        missing = missing_extra(error, what=f"palate.{name}")
        raise (missing or error) from error
    target = module if is_module else getattr(module, name)
    globals()[name] = target
    return target


def __dir__() -> list[str]:
    """The face, and what modules have anyway."""
    return sorted({*globals(), *__all__})
