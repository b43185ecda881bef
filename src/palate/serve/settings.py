"""Settings of the server: its limits, and how it learns."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from palate.core.protocols import DEFAULT_MAX_TOKENS
from palate.core.settings import Settings
from palate.preferences.settings import LearningSettings

REMOVED = {
    "strength": "the library's own strength is used (soup.json), and a request may give another",
    "auto_tolerance": "`auto` compares the methods by their measured utility (methods.json)",
}


Origin = Annotated[str, Field(pattern=r"^https?://[^/*\s]+$")]  # each by its name, never all


class ServeSettings(Settings):
    """Settings of the server."""

    RENAMED = {  # noqa: RUF012  (a ClassVar of the base)
        "max_rows": "max_num_seqs",
        "max_positions": "max_num_batched_tokens",
        "max_read_tokens": "prefill_chunk_tokens",
    }

    max_num_seqs: int = Field(default=64, ge=1)  # most rows of the running batch
    max_num_batched_tokens: int = Field(default=262_144, ge=1)  # most in the key-value cache
    # size of the prefix cache in tokens; a prefix serves later prompts of the same tenant and,
    # where coefficients reach keys and values, of the same coefficients
    max_prefix_tokens: int = Field(default=32_768, ge=0)
    # most tokens of one prompt that are prefilled between two steps of others, as far as the prefix
    # cache holds its chunks
    prefill_chunk_tokens: int = Field(default=256, ge=16)
    max_queue: int = Field(default=256, ge=1)  # answers that wait for a first token; more get 429
    max_open: int = Field(default=1024, ge=1)  # requests in progress, of all kinds; more get 429
    max_open_per_key: int = Field(default=256, ge=1)  # of them, with one key
    max_connections: int = Field(default=2048, ge=1)  # more end the one that has waited longest
    max_connections_per_address: int = Field(default=512, ge=1)  # the same; of a proxy, all
    header_seconds: float = Field(default=10.0, gt=0)  # then a request's headers must be there
    body_seconds: float = Field(default=20.0, gt=0)  # then its body must be, or gets 408
    stall_seconds: float = Field(default=30.0, gt=0)  # for which a client may read nothing
    database_seconds: float = Field(default=10.0, gt=0)  # then waiting for the database ends: 503
    default_tokens: int = Field(default=DEFAULT_MAX_TOKENS, ge=1)  # of an answer, if none are asked
    max_tokens: int = Field(default=1024, ge=1)  # longest answer that may be asked for
    max_prompt_tokens: int = Field(default=4096, ge=1)
    max_body_bytes: int = Field(default=262_144, ge=1024)
    deadline_seconds: float = Field(default=120.0, gt=0)  # then a request is aborted with 504
    requests_per_minute: int = Field(default=600, ge=1)  # of each key; ten times that without keys
    burst: int = Field(default=60, ge=1)  # requests of a key at once before that rate counts
    wrong_keys_per_minute: int = Field(default=60, ge=1)  # of each address
    max_users: int = Field(default=1_000_000, ge=1)  # of a tenant; then new ones get 403
    max_stored_bytes: int = Field(default=2**34, ge=1)  # of a tenant's users; then they get 403
    keep_days: float | None = Field(default=None, gt=0)  # older answers are deleted; feedback stays
    allow_special_tokens: bool = False  # typed by a user they are text, unless callers are trusted
    # other sites whose pages may send requests, as `https://app.example`; without keys, they may do
    # all that the administrator may
    cors_origins: tuple[Origin, ...] = ()
    drain_seconds: int = Field(default=30, ge=0)  # for running requests, after SIGTERM
    apply_after: int = Field(default=3, ge=1)  # items of feedback until a belief is used
    is_observing: bool = False  # never use a belief, only learn it
    n_candidates: int = Field(default=8, ge=2, le=64)  # from which a question's two are selected
    question_tokens: int = Field(default=128, ge=1)  # of a question's answers, if none are asked
    learning: LearningSettings = LearningSettings()  # a gain in `soup.json` goes before
    # of adapters that administrators may add as experts, each in a folder of its name; none: nobody
    experts_folder: Path | None = None
    # so often the library's folder is looked at, and loaded anew where it has changed; none: never
    watch_seconds: float | None = Field(default=None, gt=0)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    is_traced: bool = False  # send OpenTelemetry spans to the global provider

    @model_validator(mode="before")
    @classmethod
    def _require_no_removed_key(cls, values: Any) -> Any:
        for key, instead in REMOVED.items():
            if isinstance(values, dict) and key in values:
                raise ValueError(f"the key {key!r} is gone, remove it; {instead}")
        return values
