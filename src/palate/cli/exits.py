"""From the tree of errors to exit codes: 0 done, 1 a stated check failed, 2 bad input."""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer

from palate.core.errors import (
    CheckFailedError,
    InvalidInputError,
    NotCertifiedError,
    NotConvergedError,
    PalateError,
    ProviderError,
)
from palate.core.extras import missing_extra

CHECK_FAILED = 1
BAD_INPUT = 2
_CHECKS = (CheckFailedError, NotCertifiedError, NotConvergedError, ProviderError)


def exit_code(error: PalateError) -> int:
    """1 where something was carried out and failed, 2 where it could not be begun."""
    return CHECK_FAILED if isinstance(error, _CHECKS) else BAD_INPUT


def run_program(app: typer.Typer, *, name: str) -> None:
    """Run a program; an error of ours is one sentence on standard error and an exit code."""
    try:
        _require_text(sys.argv)
        app(prog_name=name)
    except PalateError as error:
        _leave(error)
    except OSError as error:
        unusable = unusable_path(error)
        if unusable is None:
            raise
        _leave(unusable)
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        _leave(missing)


def _leave(error: PalateError) -> NoReturn:
    typer.echo(f"palate: {error}", err=True)
    sys.exit(exit_code(error))


def unusable_path(error: OSError) -> InvalidInputError | None:
    """The error that names the path that cannot be used, or `None` where no path is to blame."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InvalidInputError(
            f"Nothing more can be written ({error.strerror}); free some space."
        )
    if not isinstance(error.filename, str | bytes):
        return None
    path = Path(os.fsdecode(error.filename))
    place = path.parent if path.suffix == ".tmp" else path  # files are written beside their target
    return InvalidInputError(
        f"The path {str(place)!r} cannot be read or written ({error.strerror}); give another one, "
        "or change what it allows."
    )


def _require_text(arguments: Sequence[str]) -> None:
    """Refuse arguments of other bytes than UTF-8, which no answer and no file could repeat."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"The argument {argument!r} is not UTF-8 text; convert it."
            ) from error
