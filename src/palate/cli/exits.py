"""From the tree of errors to exit codes: 0 done, 1 a stated check failed, 2 bad input."""

from palate.core.errors import (
    CheckFailedError,
    MissingExtraError,
    NotCertifiedError,
    NotConvergedError,
    PalateError,
    ProviderError,
)

CHECK_FAILED = 1
BAD_INPUT = 2
EXTRA_OF = {
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "trl": "train",
    "accelerate": "train",
    "datasets": "train",
    "safetensors": "train",
    "tokenizers": "train",
    "sklearn": "train",
    "fastapi": "serve",
    "uvicorn": "serve",
    "sqlalchemy": "serve",
    "alembic": "serve",
    "psycopg": "serve",
    "prometheus_client": "serve",
    "openai": "serve",
    "matplotlib": "plots",
    "jinja2": "plots",
    "ray": "scale",
    "lm_eval": "harness",
}  # which extra brings a module
_CHECKS = (CheckFailedError, NotCertifiedError, NotConvergedError, ProviderError)


def exit_code(error: PalateError) -> int:
    """1 where something was carried out and failed, 2 where it could not be begun."""
    return CHECK_FAILED if isinstance(error, _CHECKS) else BAD_INPUT


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """The error that names the extra to install, or `None` when no extra brings the module."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRA_OF:
        return None
    return MissingExtraError(
        f"This command needs the module {module!r}, which is not installed; install "
        f"palate[{EXTRA_OF[module]}]."
    )
