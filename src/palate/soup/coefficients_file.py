"""A user's fitted coefficients as a file, to be answered with.

It names the base and the experts it was fitted on, so that it is refused where they are others.
"""

from dataclasses import dataclass
from pathlib import Path

from palate.core.errors import FormatError, InvalidCoefficientsError, InvalidInputError
from palate.core.files import is_finite_number, read_versioned, write_versioned

KIND = "palate coefficients"
VERSION = 1


@dataclass(frozen=True)
class CoefficientsFile:
    """What is in the file."""

    base: str  # hash of the base model's files
    coefficients: dict[str, float]  # by expert, in bank order; those not in use are zero


def save_coefficients(path: Path, content: CoefficientsFile) -> None:
    """Write the file, whole or not at all."""
    write_versioned(
        path,
        kind=KIND,
        version=VERSION,
        content={"base": content.base, "coefficients": content.coefficients},
    )


def load_coefficients(path: Path, *, base: str | None = None) -> CoefficientsFile:
    """Read the file; with a base, that of another base model is refused.

    Raises:
        InvalidInputError: the file is missing or lacks a field.
        InvalidCoefficientsError: a coefficient is not a finite number.
        FormatError: it is of another kind or version, or for another base model.
    """
    content = read_versioned(path, kind=KIND, version=VERSION)
    named = content.get("coefficients")
    if not isinstance(named, dict) or not isinstance(content.get("base"), str):
        raise InvalidInputError(
            f"The coefficients file {str(path)!r} lacks 'base' or 'coefficients'; fit it anew."
        )
    wrong = [name for name, value in named.items() if not is_finite_number(value)]
    if wrong:
        raise InvalidCoefficientsError(
            f"The coefficient of {wrong[0]!r} in {str(path)!r} is {named[wrong[0]]!r}, which is "
            "not a finite number."
        )
    if base is not None and content["base"] != base:
        raise FormatError(
            f"The coefficients file {str(path)!r} is for the base model {content['base']!r}, but "
            f"{base!r} is in use."
        )
    return CoefficientsFile(content["base"], {name: float(value) for name, value in named.items()})
