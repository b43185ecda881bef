"""Settings of the server: its limits, and how it learns."""

from typing import Any, Literal

from pydantic import Field, model_validator

from palate.core.protocols import DEFAULT_MAX_TOKENS
from palate.core.settings import Settings
from palate.preferences.settings import LearningSettings

REMOVED = {
    "strength": "the library's own strength is used (soup.json), and a request may give another",
    "auto_tolerance": "`auto` compares the methods by their measured utility (methods.json)",
}


class ServeSettings(Settings):
    """Settings of the server.

    Attributes:
        max_num_seqs: Most rows of the running batch; 1 answers one request at a time.
        max_num_batched_tokens: Most tokens that the key-value cache may come to hold, over all
            sequences.
        max_prefix_tokens: Size of the prefix cache in tokens; 0 caches nothing. A prefix serves
            later prompts of the same tenant and, where coefficients reach keys and values, of the
            same coefficients.
        prefill_chunk_tokens: Most tokens of one prompt that are prefilled between two steps of
            others, as far as the prefix cache holds its chunks.
        max_queue: Answers that may wait for their first token; more are refused with 429.
        max_open: Requests of all kinds in progress; more are refused with 429.
        default_tokens: Longest answer where the request does not say.
        max_tokens: Longest answer that may be asked for.
        max_prompt_tokens: Longest prompt.
        max_body_bytes: Longest body of a request.
        deadline_seconds: A request that has not ended by then is aborted with 504.
        requests_per_minute: Of each key (of all callers where no keys are needed).
        burst: Requests that a key may send at once before that rate counts.
        drain_seconds: For which running requests may go on after SIGTERM.
        apply_after: Items of feedback from which on a belief is used; before, it is only learned.
        is_observing: Never use a belief, only learn it.
        n_candidates: Answers from which a question's two are selected.
        question_tokens: Longest answer of a question where the request does not say.
        learning: How beliefs follow from feedback; a population's gain in `soup.json` goes before.
        is_traced: Send OpenTelemetry spans to the global provider (set up by environment
            variables).
    """

    max_num_seqs: int = Field(default=64, ge=1)
    max_num_batched_tokens: int = Field(default=262_144, ge=1)
    max_prefix_tokens: int = Field(default=32_768, ge=0)
    prefill_chunk_tokens: int = Field(default=256, ge=16)
    max_queue: int = Field(default=256, ge=1)
    max_open: int = Field(default=1024, ge=1)
    default_tokens: int = Field(default=DEFAULT_MAX_TOKENS, ge=1)
    max_tokens: int = Field(default=1024, ge=1)
    max_prompt_tokens: int = Field(default=4096, ge=1)
    max_body_bytes: int = Field(default=262_144, ge=1024)
    deadline_seconds: float = Field(default=120.0, gt=0)
    requests_per_minute: int = Field(default=600, ge=1)
    burst: int = Field(default=60, ge=1)
    drain_seconds: int = Field(default=30, ge=0)
    apply_after: int = Field(default=3, ge=1)
    is_observing: bool = False
    n_candidates: int = Field(default=8, ge=2, le=64)
    question_tokens: int = Field(default=128, ge=1)
    learning: LearningSettings = LearningSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    is_traced: bool = False

    @model_validator(mode="before")
    @classmethod
    def _require_no_removed_key(cls, values: Any) -> Any:
        for key, instead in REMOVED.items():
            if isinstance(values, dict) and key in values:
                raise ValueError(f"the key {key!r} is gone, remove it; {instead}")
        return values
