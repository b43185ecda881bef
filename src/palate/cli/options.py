"""Options that several commands share, and how their text is read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.core.errors import InvalidInputError
from palate.library.shipped import library_folder

if TYPE_CHECKING:
    from palate.core.decision import Known
    from palate.core.protocols import SamplingParams
    from palate.library.engines import EngineChoice
    from palate.library.library import Library

LibraryFolder = Annotated[
    Path,
    typer.Argument(
        help="Folder of a library, or smollm2-135m.", parser=library_folder, metavar="LIBRARY"
    ),
]
LibraryOrBase = Annotated[
    Path,
    typer.Argument(
        help="Folder or hub id of a library or of a bare base, or smollm2-135m.",
        parser=library_folder,
        metavar="LIBRARY",
    ),
]
BasePath = Annotated[
    str | None, typer.Option("--base", help="Where the base is now, if it has moved.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
]
Engine = Annotated[
    str, typer.Option(help="What writes the answers: local (this process), vllm or openai.")
]
DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database",
        envvar="PALATE_DATABASE",
        help="sqlite:///FILE, a path, or postgresql://..., which replicas need.",
    ),
]
EngineConfig = Annotated[
    Path | None, typer.Option("--engine-config", help="YAML of the engine's settings.")
]
EngineSet = Annotated[
    list[str] | None,
    typer.Option("--engine-set", metavar="KEY=VALUE", help="A setting of the engine."),
]
IsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
PreferenceText = Annotated[
    str | None,
    typer.Option("--preference", "-p", metavar="a=0.7,b=0.3", help="Shares by objective, sum one."),
]
CoefficientsText = Annotated[
    str | None,
    typer.Option(
        "--coefficients",
        "-c",
        metavar="a=0.7,b=-0.2",
        help="Coefficients by expert, any sign; or @FILE of palate soup fit.",
    ),
]
MethodName = Annotated[
    str,
    typer.Option(
        help="auto, base, prompt, best-of-n, portfolio, soup, prompted-soup, output-soup, "
        "implicit-soup or mixture."
    ),
]
InstructionText = Annotated[
    str | None, typer.Option(help="The user's own words, such as 'Keep it short.'")
]
Strength = Annotated[
    float | None,
    typer.Option(help="Multiplies coefficients from a preference; by default the library's own."),
]
MaxPasses = Annotated[
    float | None, typer.Option(help="Passes of the base per token that auto may spend.")
]
Seed = Annotated[int, typer.Option(help="Random seed of the run.")]
Temperature = Annotated[
    float | None, typer.Option(help="By default the library's; 0 is greedy.", show_default=False)
]
MaxTokens = Annotated[int, typer.Option(help="Longest answer.")]


def sampling_of(
    opened: "Library", *, temperature: float | None, max_tokens: int, top_p: float = 1.0
) -> "SamplingParams":
    """How tokens are sampled; the temperature is the library's where none is given."""
    own = replace(opened.sampling, max_tokens=max_tokens, top_p=top_p)
    return own if temperature is None else replace(own, temperature=temperature)


def open_for_user(
    library: Path,
    *,
    base: str | None,
    preference: str | None,
    coefficients: str | None,
    instruction: str | None,
    strength: float | None,
    max_passes: float | None = None,
) -> tuple["Library", "Known"]:
    """The opened library, and what the options say of a user.

    Raises:
        InvalidInputError: an option's text is not of its form, there is no library, or the
            coefficients are of another base.
        FormatError: the library is damaged.
    """
    from palate.core.decision import Known
    from palate.library.library import Library

    known = Known(
        preference=numbers_by_name(preference, what="preference"),
        coefficients=coefficients_by_name(coefficients),
        instruction=instruction,
        strength=strength,
        max_passes=max_passes,
    )
    opened = Library.load(library, base=base)
    coefficients_by_name(coefficients, base=opened.manifest.base.fingerprint)
    return opened, known


def chosen_engine(
    engine: str, config: Path | None, overrides: Sequence[str]
) -> "EngineChoice | None":
    """The engine that the options name; `None` for this process.

    Raises:
        InvalidInputError: there is no such engine, or its settings are wrong.
    """
    if engine == "local":
        if config is not None or overrides:
            raise InvalidInputError(
                "The options --engine-config and --engine-set belong to another --engine than "
                "local; name one, or leave them out."
            )
        return None
    from palate.library.engines import load_engine

    return load_engine(engine, config, overrides=overrides)


def numbers_by_name(text: str | None, *, what: str) -> Mapping[str, float] | None:
    """`a=0.7,b=0.3` as a mapping, or `None` for `None`.

    Raises:
        InvalidInputError: a part is not of that form, a name occurs twice, or a number is not
            finite.
    """
    if text is None:
        return None
    numbers: dict[str, float] = {}
    for part in text.split(","):
        name, sign, number = (piece.strip() for piece in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or not sign or not math.isfinite(value):
            raise InvalidInputError(
                f"The {what} {text!r} has the part {part.strip()!r}, which is not of the form "
                "name=number."
            )
        if name in numbers:
            raise InvalidInputError(f"The {what} {text!r} names {name!r} twice; name it once.")
        numbers[name] = value
    return numbers


def coefficients_by_name(
    text: str | None, *, base: str | None = None
) -> Mapping[str, float] | None:
    """Coefficients given in the text, or in the file, of this base, that it names after an `@`.

    Raises:
        InvalidInputError: a part is not of the form name=number, or the file is missing or wrong.
        FormatError: the file is no coefficients file.
    """
    if text is None or not text.startswith("@"):
        return numbers_by_name(text, what="coefficients")
    from palate.soup.coefficients_file import load_coefficients

    return load_coefficients(Path(text[1:]), base=base).coefficients
