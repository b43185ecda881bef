"""The closed tree of errors.

Every message is one sentence: what is wrong, which value, what to do. `palate.cli.exits` maps the
tree to exit codes, and the server maps it to HTTP in one function.
"""


class PalateError(Exception):
    """Root of everything that `palate` raises on purpose."""


class InvalidInputError(PalateError, ValueError):
    """A value breaks a stated rule."""


class InvalidPreferenceError(InvalidInputError):
    """A preference has the wrong length, is not finite, or lies off the simplex."""


class InvalidCoefficientsError(InvalidInputError):
    """Coefficients have the wrong length, are not finite, or name an unknown expert."""


class UserErasedError(InvalidInputError):
    """The user was erased while something was under way for them; it was dropped."""


class MissingExtraError(PalateError, ImportError):
    """An optional dependency is absent; the message names the extra to install."""


class FormatError(PalateError):
    """A file is of another kind, version or base model than expected; the message names both."""


class ProviderError(PalateError):
    """An endpoint failed."""

    def __init__(self, message: str, *, is_retryable: bool = False) -> None:
        """Note whether a retry can help."""
        super().__init__(message)
        self.is_retryable = is_retryable


class UnknownModelError(ProviderError):
    """A server knows no model of the requested name; it may have been restarted."""


class NotConvergedError(PalateError):
    """An iteration stopped early."""

    def __init__(self, message: str, *, last: object = None, gap: float = float("nan")) -> None:
        """Carry the last value and the gap for callers that can use them."""
        super().__init__(message)
        self.last = last
        self.gap = gap


class NotCertifiedError(PalateError):
    """The data or the assumptions do not carry the bound asked for."""


class CheckFailedError(PalateError):
    """A stated check was carried out and failed (exit code 1); the message says which."""
