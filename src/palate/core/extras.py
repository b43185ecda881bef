"""Which extra of the package installs which module."""

from palate.core.errors import MissingExtraError

EXTRA_OF = {
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "trl": "train",
    "accelerate": "train",
    "datasets": "train",
    "safetensors": "train",
    "tokenizers": "train",
    "gguf": "train",
    "sklearn": "train",
    "fastapi": "serve",
    "uvicorn": "serve",
    "httptools": "serve",
    "opentelemetry": "serve",
    "sqlalchemy": "serve",
    "alembic": "serve",
    "psycopg": "postgres",
    "prometheus_client": "serve",
    "openai": "serve",
    "llguidance": "serve",
    "matplotlib": "plots",
    "jinja2": "plots",
    "ray": "scale",
    "lm_eval": "harness",
}


def missing_extra(
    error: ModuleNotFoundError, *, what: str = "This command"
) -> MissingExtraError | None:
    """The error that names the extra to install, or `None` when no extra has the module."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRA_OF:
        return None
    return MissingExtraError(
        f"{what} needs the module {module!r}, which is not installed; install "
        f"palate[{EXTRA_OF[module]}]."
    )
