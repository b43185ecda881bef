"""Which extra of the package installs which module."""

from palate.core.errors import MissingExtraError

MODULES = {
    "train": "torch transformers peft trl accelerate datasets safetensors tokenizers gguf sklearn",
    "serve": (
        "fastapi uvicorn httptools opentelemetry sqlalchemy alembic prometheus_client openai "
        "llguidance"
    ),
    "postgres": "psycopg",
    "plots": "matplotlib jinja2",
    "scale": "ray",
    "harness": "lm_eval",
}
EXTRA_OF = {module: extra for extra, modules in MODULES.items() for module in modules.split()}


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
