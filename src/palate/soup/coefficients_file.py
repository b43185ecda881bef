"""A user's fitted coefficients as a file, to be answered with.

It names the base and the experts it was fitted on, so that it is refused where they are others.
"""

from pathlib import Path

from pydantic import FiniteFloat

from palate.core.errors import FormatError
from palate.core.files import read_versioned, write_versioned
from palate.core.settings import Settings

KIND = "palate coefficients"
VERSION = 1


class CoefficientsFile(Settings):
    """What is in the file."""

    base: str  # hash of the base model's files
    coefficients: dict[str, FiniteFloat]  # by expert, in bank order; those not in use are zero


def save_coefficients(path: Path, content: CoefficientsFile) -> None:
    """Write the file, whole or not at all."""
    write_versioned(path, kind=KIND, version=VERSION, content=content.model_dump())


def load_coefficients(path: Path, *, base: str | None = None) -> CoefficientsFile:
    """Read the file; with a base, that of another base model is refused.

    Raises:
        InvalidInputError: the file is missing, lacks a field, or a coefficient is not finite.
        FormatError: it is of another kind or version, or for another base model.
    """
    content = read_versioned(path, kind=KIND, version=VERSION)
    del content["kind"], content["schema_version"]
    fitted = CoefficientsFile.checked(content, source=str(path))
    if base is not None and fitted.base != base:
        raise FormatError(
            f"The coefficients file {str(path)!r} is for the base model {fitted.base!r}, but "
            f"{base!r} is in use."
        )
    return fitted
