"""Options that several commands share, and how their text is read."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from palate.core.errors import InvalidInputError

LibraryFolder = Annotated[Path, typer.Argument(help="Folder of a library.")]
BasePath = Annotated[
    str | None, typer.Option("--base", help="Where the base is now, if it has moved.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
]
FileOverrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Over the file.")
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


def numbers_by_name(text: str | None, *, what: str) -> Mapping[str, float] | None:
    """`a=0.7,b=0.3` as a mapping, or `None` for `None`.

    Raises:
        InvalidInputError: a part is not of that form, a name occurs twice, or a number is not
            finite.
    """
    if text is None:
        return None
    found: dict[str, float] = {}
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
        if name in found:
            raise InvalidInputError(f"The {what} {text!r} names {name!r} twice; name it once.")
        found[name] = value
    return found


def coefficients_by_name(text: str | None) -> Mapping[str, float] | None:
    """Coefficients given in the text, or in the file that it names after an `@`.

    Raises:
        InvalidInputError: a part is not of the form name=number, or the file is missing or wrong.
        FormatError: the file is no coefficients file.
    """
    if text is None or not text.startswith("@"):
        return numbers_by_name(text, what="coefficients")
    from palate.soup.coefficients_file import load_coefficients

    return load_coefficients(Path(text[1:])).coefficients


def whole_numbers(text: str, *, what: str) -> tuple[int, ...]:
    """`0,1,2` as numbers.

    Raises:
        InvalidInputError: a part is not a whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInputError(
            f"The {what} {text!r} are not whole numbers separated by commas, such as 0,1,2."
        ) from error
