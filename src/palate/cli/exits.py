"""From the tree of errors to exit codes: 0 done, 1 a stated check failed, 2 bad input."""

from palate.core.errors import (
    CheckFailedError,
    NotCertifiedError,
    NotConvergedError,
    PalateError,
    ProviderError,
)

CHECK_FAILED = 1
BAD_INPUT = 2
_CHECKS = (CheckFailedError, NotCertifiedError, NotConvergedError, ProviderError)


def exit_code(error: PalateError) -> int:
    """1 where something was carried out and failed, 2 where it could not be begun."""
    return CHECK_FAILED if isinstance(error, _CHECKS) else BAD_INPUT
